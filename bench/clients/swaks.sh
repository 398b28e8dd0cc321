#!/bin/sh
# swaks, one process for each message.
[ "$1" != --check ] || exec swaks --version >/dev/null
while read -r id; do
    if sed "s/0000000000000000/$id/" "$3" |
        swaks --server "$1" --port "$2" --ehlo app.example --from no-reply@bench.example --to user@example.net \
            --data - --silent 3 >&2; then
        echo sent
    else
        echo "swaks: exit code $?"
    fi
done
