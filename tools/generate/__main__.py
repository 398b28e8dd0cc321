"""Write every generated file: `python -m tools.generate`. Prints those that changed."""

from __future__ import annotations

from tools.generate.files import ROOT, generated


def main() -> None:
    for path, text in generated().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
