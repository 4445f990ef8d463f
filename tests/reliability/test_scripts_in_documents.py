"""Promise 18: text from documents cannot script a page or load anything.

The service has no page of its own. What a browser would be given is checked instead: no answer is of a
type that browsers run, none may be guessed to be one, and the policy that comes with each forbids all.
"""

from __future__ import annotations

from pathlib import Path

from promises import cases, report
from small_library import client_of, small_settings

EVIL = "alert(1)"
ATOMS = [
    f"<script>{EVIL}</script>",
    f"<img src=x onerror={EVIL}>",
    f"<svg/onload={EVIL}>",
    f"<iframe src=javascript:{EVIL}>",
    f"javascript:{EVIL}",
    f"<a href='data:text/html,<script>{EVIL}</script>'>x</a>",
    "<style>@import '//evil'</style>",
    "<link rel=stylesheet href=//evil>",
    "<meta http-equiv=refresh content='0;url=//evil'>",
    "<base href=//evil>",
    "<object data=//evil>",
    "<embed src=//evil>",
    f"<math><mtext></form><form><mglyph><style></math><img src onerror={EVIL}>",
    f"{{{{constructor.constructor('{EVIL}')()}}}}",
    f"${{{EVIL}}}",
    "<!--#include file=x-->",
    f"]]><script>{EVIL}</script>",
    f"<?xml version='1.0'?><x:script xmlns:x='http://www.w3.org/1999/xhtml'>{EVIL}</x:script>",
    f"\u2028{EVIL}\u2029",
    "<form action=//evil><input name=q></form>",
]
FRAMES = [
    "%s",
    "Before. %s",
    "%s After.",
    "# %s",
    "[x](%s)",
    "![%s](//evil)",
    "> %s",
    "`%s`",
    "<b>%s</b>",
    "=%s",
]
# Types that browsers render as a page, run, or take as part of one.
ACTIVE = ("html", "xml", "svg", "javascript", "css", "pdf", "x-shockwave")


def test_nothing_is_given_that_a_browser_would_run(tmp_path: Path) -> None:
    payloads = [frame % atom for frame in FRAMES for atom in ATOMS][:: 200 // cases(10, 200)]
    wrong = []
    with client_of(small_settings(tmp_path)) as client:
        for i, payload in enumerate(payloads):
            words = "".join(filter(str.isprintable, payload[:40])).strip()
            text = f"{payload} The mill stands by the river."
            document = {"id": f"{i}/{words}", "title": payload[:200], "text": text}
            client.post("/v1/collections/c/documents", json={"documents": [document]}).raise_for_status()
            page = [("files", (f"page{i}.html", f"<p>The mill {i}</p>{payload}".encode(), "text/html"))]
            client.post("/v1/collections/c/documents", files=page).raise_for_status()
            inside = f"/v1/collections/c/documents/page{i}.html"
            asked = [client.get(f"{inside}/{what}") for what in ("text", "chunks", "original")]
            asked += [
                client.post("/v1/collections/c/search", json={"query": payload + " mill"}),
                client.post("/v1/collections/c/answer", json={"query": f"Where does the mill {i} stand?"}),
                client.post("/v1/collections/c/answer", json={"query": "mill", "stream": True}),
                client.get("/v1/collections/c/documents"),
                client.get(f"/v1/collections/c/documents/{payload[:60].replace('/', '')}"),
                client.get(f"/{payload[:60]}".replace("//", "/")),
            ]
            for response in asked:
                kind = response.headers["content-type"]
                policy = response.headers["content-security-policy"]
                safe = (
                    not any(word in kind for word in ACTIVE)
                    and response.headers["x-content-type-options"] == "nosniff"
                    and "default-src 'none'" in policy
                    and "sandbox" in policy
                )
                if not safe:
                    wrong.append((str(response.request.url), kind))
    report(18, "payloads in all that repeats a document (headers; no page)", len(payloads), len(wrong))
    assert not wrong
