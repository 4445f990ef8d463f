#!/bin/sh
# Upload, search, ask and stream with curl.
#   LONGLEAF_URL=http://127.0.0.1:8000 LONGLEAF_KEY=id.secret sh examples/curl.sh
set -eu
url="${LONGLEAF_URL:-http://127.0.0.1:8000}"
ask() { curl --silent --show-error --fail-with-body -H "Authorization: Bearer ${LONGLEAF_KEY:-none}" "$@"; echo; }

echo "== upload a text and a file"
ask "$url/v1/collections/examples/documents" -H 'Content-Type: application/json' -d '{
  "documents": [{
    "id": "lease", "title": "Lease of the mill", "metadata": {"year": 1869},
    "text": "The tenant pays forty pounds a year. Either party may end the lease with three months notice."
  }]}'
printf 'The miller keeps the wheel and the sluice in repair at his own cost.' >"${TMPDIR:-/tmp}/longleaf-example.txt"
ask "$url/v1/collections/examples/documents" -F "files=@${TMPDIR:-/tmp}/longleaf-example.txt" -F 'metadata={"year": 1869}'
rm "${TMPDIR:-/tmp}/longleaf-example.txt"

echo "== search, inside of documents of one year"
ask "$url/v1/collections/examples/search" -H 'Content-Type: application/json' \
  -d '{"query": "Who repairs the sluice?", "top_k": 2, "filter": {"year": {"gte": 1860}}}'

echo "== an answer as events, as it is made"
ask --no-buffer "$url/v1/collections/examples/answer" -H 'Content-Type: application/json' \
  -d '{"query": "With how much notice may either party end the lease?", "stream": true}'

echo "== the text of a document, and its deletion"
ask "$url/v1/collections/examples/documents/lease/text"
ask -X DELETE "$url/v1/collections/examples"
