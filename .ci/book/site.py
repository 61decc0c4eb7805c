"""Makes the site: site.py TARGET. TARGET is cargo's folder, with its doc/.

Links lead from page to page as they do in the project's folder, so they are
right on every Git host and here. What is no page of the book, but is linked to,
gets a page of its own: a source file is shown under its own path. At the end
every link of every page is followed.
"""

import html
import html.parser
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from pathlib import Path

TARGET = Path(sys.argv[1]).resolve()
SITE = TARGET / "book"

CODE_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{path}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1.5em auto; max-width: 60em; padding: 0 1em }}
pre {{ font: 14px/1.45 ui-monospace, Consolas, monospace; overflow-x: auto }}
</style>
<p><a href="{home}lessons/index.html">The lessons</a></p>
<h1>{path}</h1>
{body}
</html>
"""


class Page(html.parser.HTMLParser):
    """The links of a page, and the places in it that a link may lead to."""

    def __init__(self, file):
        super().__init__()
        self.links, self.places = [], set()
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.places.add(attributes.get("id"))
        self.places.add(attributes.get("name") if tag == "a" else None)
        for name in ("href", "src"):
            link = attributes.get(name)
            if link and not re.match(r"[a-z+]+:|//|javascript", link) and tag != "base":
                self.links.append(link)


def mdbook(source, destination):
    subprocess.run(["mdbook", "build", source, "--dest-dir", destination], check=True, stderr=subprocess.DEVNULL)


def first_pages():
    """The README and its like, which are outside the book, as a book of their own."""
    pages = ["README.md", "tests/proof/README.md"]
    with tempfile.TemporaryDirectory() as folder:
        for page in pages:
            (Path(folder) / page).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(page, Path(folder) / page)
        titles = ["socket-chat", "The proof of the grading"]
        lines = [f"- [{title}]({page})\n" for title, page in zip(titles, pages)]
        (Path(folder) / "SUMMARY.md").write_text("".join(lines))
        settings = Path("lessons/book.toml").read_text()
        (Path(folder) / "book.toml").write_text(settings)
        mdbook(folder, SITE)
    (SITE / "book.toml").unlink()


def documentation():
    """The documentation of the code. In the project it is in target/doc."""
    shutil.copytree(TARGET / "doc", SITE / "doc")
    for file in (SITE / "doc").rglob("*.html"):
        text = file.read_text()
        moved = re.sub(r'href="\.\./((?:\.\./)+)lessons/(\w+)\.md', r'href="\1lessons/\2.html', text)
        if moved != text:
            file.write_text(moved)


def code_page(path):
    """A page for a file or a folder of the project, under its own path."""
    source, page = Path(path), SITE / path / "index.html"
    if source.is_dir():
        names = sorted(file.name for file in source.iterdir())
        body = "".join(f'<p><a href="{name}">{name}</a></p>\n' for name in names)
    else:
        body = f"<pre>{html.escape(source.read_text())}</pre>"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(CODE_PAGE.format(path=path, body=body, home="../" * len(page.parent.relative_to(SITE).parts)))


def is_documentation(file):
    return (SITE / "doc") in file.parents


def destination(page, link):
    """The file that a link leads to, and the place in it."""
    path, _, place = link.partition("#")
    path = urllib.parse.unquote(path.split("?")[0])
    file = Path(os.path.normpath(page.parent / path)) if path else page
    if file.is_dir():
        file = file / "index.html"
    return file, urllib.parse.unquote(place)


def follow_links():
    """Follows all links, and makes the pages that they lack. Returns what is wrong."""
    pages, wrong = {}, []
    # Of the documentation only our own: the rest is the tool's.
    waiting = [file for file in SITE.rglob("*.html") if not is_documentation(file)]
    waiting += (SITE / "doc/socket_chat").rglob("*.html")
    while waiting:
        file = waiting.pop()
        pages[file] = pages.get(file) or Page(file)
        for link in pages[file].links:
            to, place = destination(file, link)
            if not to.exists() and SITE in to.parents and not is_documentation(to):
                path = to.relative_to(SITE)
                if path.exists():
                    code_page(path)
                    to, place = destination(file, link)
                    waiting.append(to)
            if not to.exists():
                wrong.append(f"{file.relative_to(SITE)}: {link} leads nowhere")
            elif place and to.suffix == ".html" and not is_documentation(to):
                pages[to] = pages.get(to) or Page(to)
                if place not in pages[to].places:
                    wrong.append(f"{file.relative_to(SITE)}: {link}: there is no such place")
    print(f"{SITE}: {len(pages)} pages, {sum(len(page.links) for page in pages.values())} links")
    return sorted(set(wrong))


def main():
    shutil.rmtree(SITE, ignore_errors=True)
    first_pages()
    mdbook("lessons", SITE / "lessons")
    documentation()
    # A README is the index of its folder; links name it as it is in the project.
    for index in list(SITE.rglob("index.html")):
        if Path(index.parent.relative_to(SITE), "README.md").exists():
            shutil.copy(index, index.with_name("README.html"))
    wrong = follow_links()
    print("\n".join(wrong))
    sys.exit(bool(wrong))


main()
