"""Train the content detector: words and labelled mails in, relay/mail/codes/detector.json out.

    python -m tools.train_detector [--hold-out] FOLDER...

Each folder holds mails and a labels.jsonl (file, label, lang, source, ...), as tools/example_mails.py writes it.
`--hold-out` writes nothing: it trains once for each source without that source's mails, judges those, and reports.
Needs `pip install -e '.[train]'`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

from relay.mail.codes.detector import NO_TOKEN
from relay.mail.codes.features import Candidate, candidates
from relay.mail.codes.lexicon import Lexicon
from relay.mail.codes.reading import read
from relay.mail.message import parse
from tools.lexicon_data import compiled

HERE = Path(__file__).parent
MODEL = HERE.parent / "relay" / "mail" / "codes" / "detector.json"
ROUNDS = 4
"""A mail's label doesn't say which of its tokens is the code: each round takes the one that the last model chose."""
STRENGTH = 1.0
"""the inverse of L2 regularisation"""
LEAST_WEIGHT = 0.02
CAUTION = 0.75
"""taken off the bias: judged with its source left out, a mail's score is less certain than the model thinks.
docs/detector.md has the precision and the recall with this value"""


@dataclass(frozen=True, slots=True)
class Example:
    name: str
    language: str
    source: str
    is_otp: bool
    candidates: tuple[Candidate, ...]


class Trained:
    """A fitted model; `weights` and `bias` as detector.json has them."""

    def __init__(self, weights: dict[str, float], bias: float) -> None:
        self.weights, self.bias = weights, bias

    def score(self, candidate: Candidate) -> float:
        return self.bias + sum(self.weights.get(feature, 0.0) for feature in candidate.features)

    def judge(self, example: Example) -> float:
        return max(map(self.score, example.candidates), default=NO_TOKEN)


def fit(examples: list[Example]) -> Trained:
    model: Trained | None = None
    for _ in range(ROUNDS):
        rows: list[dict[str, int]] = []
        labels: list[int] = []
        weights: list[float] = []
        for example in examples:
            if example.is_otp and example.candidates:
                chosen = max(example.candidates, key=_first_guess if model is None else model.score)
                rows.append(dict.fromkeys(chosen.features, 1))
                labels.append(1)
                weights.append(1.0)
            elif not example.is_otp:
                for candidate in example.candidates:
                    rows.append(dict.fromkeys(candidate.features, 1))
                    labels.append(0)
                    weights.append(len(example.candidates) ** -0.5)
        vectors = DictVectorizer()
        regression = LogisticRegression(C=STRENGTH, max_iter=5_000)
        regression.fit(vectors.fit_transform(rows), labels, sample_weight=weights)
        found = zip(vectors.get_feature_names_out(), regression.coef_[0], strict=True)
        model = Trained(
            {name: round(float(weight), 3) for name, weight in found if abs(weight) >= LEAST_WEIGHT},
            round(float(regression.intercept_[0]) - CAUTION, 3),
        )
    assert model is not None
    return model


def _first_guess(candidate: Candidate) -> int:
    """Before there is a model: which token of a code's mail is the code?"""
    features = candidate.features
    for_it = sum(name in ("alone", "colon", "twice", "also_in_subject") for name in features)
    for_it += sum(name.startswith(("before:code", "above:code")) for name in features)
    against = sum(
        name in ("year", "number_sign") or name.startswith(("before:order", "before:gift")) for name in features
    )
    return for_it - against


def load(folder: Path, lexicon: Lexicon) -> Iterator[Example]:
    files = _archived(folder)
    for line in (folder / "labels.jsonl").read_text("utf-8").splitlines():
        label = json.loads(line)
        content = files.get(label["file"]) or (folder / label["file"]).read_bytes()
        subject, texts = read(parse(content))
        found: list[Candidate] = []
        for text in texts:
            found += chain.from_iterable(candidates(subject, text, lexicon))
        yield Example(label["file"], label["lang"], label["source"], label["label"] == "otp", tuple(found))


def _archived(folder: Path) -> dict[str, bytes]:
    archive = folder / "mails.tar.gz"
    if not archive.exists():
        return {}
    with tarfile.open(archive) as mails:
        return {
            Path(member.name).name: file.read()
            for member in mails.getmembers()
            if (file := mails.extractfile(member)) is not None
        }


def hold_out(examples: list[Example]) -> None:
    """Leave one source out, and judge it by a model of the others; all sources together make the figures."""
    judged: list[tuple[float, Example]] = []
    for source in sorted({example.source for example in examples}):
        model = fit([example for example in examples if example.source != source])
        judged += [(model.judge(example), example) for example in examples if example.source == source]
    report(judged)


def report(judged: list[tuple[float, Example]]) -> None:
    hit = sum(score > 0 and example.is_otp for score, example in judged)
    false = sum(score > 0 and not example.is_otp for score, example in judged)
    missed = sum(score <= 0 and example.is_otp for score, example in judged)
    print(f"{len(judged)} mails, {hit + missed} codes: precision {hit / max(1, hit + false):.4f}, "
          f"recall {hit / max(1, hit + missed):.4f} ({false} taken for codes, {missed} missed)")  # fmt: skip
    wrong = [(abs(score), score, example) for score, example in judged if (score > 0) != example.is_otp]
    for _, score, example in sorted(wrong, key=lambda one: -one[0])[:40]:
        kind = "missed" if example.is_otp else "taken"
        print(f"{kind:6} {score:+.1f} {example.language:8} {example.source} {example.name}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hold-out", action="store_true")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    given = parser.parse_args(arguments)
    words = compiled(HERE / "lexicon.yaml")
    lexicon = Lexicon(words)
    examples = [example for folder in given.folders for example in load(folder, lexicon)]
    if given.hold_out:
        hold_out(examples)
        return 0
    model = fit(examples)
    data: dict[str, Any] = {"bias": model.bias, "weights": model.weights, "lexicon": words}
    MODEL.write_text(json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n", "utf-8")
    report([(model.judge(example), example) for example in examples])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
