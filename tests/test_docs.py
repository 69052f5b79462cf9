"""The documentation is true: its examples run, its links lead somewhere, its reference is complete."""

import doctest
import importlib.util
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import bsa

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [page for page in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))) if page.exists()]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

pytestmark = pytest.mark.skipif(not (DOCS / "index.md").exists(), reason="needs the source tree")

_FENCE = re.compile(
    r"^(?:<!-- needs: (?P<needs>[\w.]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_INLINE_CODE = re.compile(r"`[^`\n]*`")


def page_id(path):
    return path.name


def blocks(page, language):
    """(line, module needed or None, code) of each fenced block in that language."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        if match["language"] == language:
            yield text.count("\n", 0, match.start("code")), match["needs"], match["code"]


# --- Python in the pages ----------------------------------------------------------------------------


def run_block(code, names, page, line):
    """Run a block: a session is compared with what it shows, a script must not fail."""
    if ">>>" not in code:
        exec(compile("\n" * line + code, str(page), "exec"), names)
        return
    test = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), line)
    test.globs = names  # get_doctest copies; later blocks use what earlier ones define
    report = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
        test, out=report.append, clear_globs=False
    )
    assert not report, "".join(report)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", DOCS / "tutorial.md", DOCS / "fragmentation.md"], ids=page_id
)
def test_the_python_of_a_page_runs_as_shown(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {"__name__": "__main__"}
    ran = 0
    for line, needs, code in blocks(page, "python"):
        if needs is None or importlib.util.find_spec(needs) is not None:
            run_block(code, names, page, line)
            ran += 1
    assert ran > 0


def test_the_quick_start_prints_what_is_shown(capsys):
    """But for the numbers, some of which depend on where a buffer lies."""
    (_, _, code), *_ = blocks(ROOT / "README.md", "python")
    ((_, _, shown),) = blocks(ROOT / "README.md", "text")
    exec(code, {})
    printed = capsys.readouterr().out
    assert re.sub(r"[\d.]+", "0", printed) == re.sub(r"[\d.]+", "0", shown)
    assert pages_in_use(printed) == pages_in_use(shown)


def pages_in_use(text):
    free, pages = map(int, re.search(r"(\d+) of (\d+) pages", text).groups())
    return pages - free


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_all_python_of_a_page_compiles(page):
    for line, _, code in blocks(page, "python"):
        if ">>>" in code:
            code = "".join(example.source for example in doctest.DocTestParser().get_examples(code))
        compile("\n" * line + code, str(page), "exec")


# --- C in the pages ---------------------------------------------------------------------------------


def c_programs():
    page = DOCS / "c-interface.md"
    for line, _, code in blocks(page, "c") if page.exists() else ():
        if "int main(" in code:
            yield pytest.param(code, id=f"line{line}")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("code", list(c_programs()))
def test_c_programs_of_the_pages_run(code, tmp_path):
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text(code, encoding="utf-8")
    core = ROOT / "csrc" / "core"
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{core}"]
    subprocess.run([*command, "-o", program, source, core / "all.c"], check=True)
    subprocess.run([program], check=True, timeout=60)


# --- links ------------------------------------------------------------------------------------------


def anchors(page):
    """The anchors that GitHub gives to headings."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        yield words.replace(" ", "-")


def links(page):
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return _LINK.findall(_INLINE_CODE.sub("", text))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in set(anchors(target)), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_placeholder_is_left(page):
    assert not re.findall(r"@[A-Z]+@|TODO|FIXME|XXX", page.read_text(encoding="utf-8"))


def test_every_page_is_in_the_index():
    listed = {link.partition("#")[0] for link in links(DOCS / "index.md")}
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} <= listed


@pytest.mark.parametrize("image", sorted(DOCS.glob("images/*.svg")), ids=page_id)
def test_every_picture_is_shown_somewhere(image):
    assert any(f"images/{image.name}" in page.read_text(encoding="utf-8") for page in PAGES)


# --- examples ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", EXAMPLES, ids=page_id)
def test_an_example_runs(example, tmp_path):
    environment = dict(os.environ, PYTHONPATH=str(pathlib.Path(bsa.__file__).parent.parent))
    command = [sys.executable, "-W", "error", str(example)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


# --- the reference ----------------------------------------------------------------------------------


def public_members(kind):
    """Names of methods and properties that a class adds to its bases."""
    inherited = set().union(*(dir(base) for base in kind.__mro__[1:]))
    for name in vars(kind):
        of_struct_sequences = issubclass(kind, tuple) and name.startswith("n_")
        if not name.startswith("_") and name not in inherited and not of_struct_sequences:
            yield name


def reference_sections():
    """The text under each main heading of the reference, by the last part of its first code word."""
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    words = [re.match(r"`bsa\.([\w.]+)", heading) for heading in parts[1::2]]
    return {word[1]: body for word, body in zip(words, parts[2::2]) if word}


def test_the_reference_names_every_public_object():
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    missing = [name for name in bsa.__all__ if not re.search(rf"`(bsa\.)?{name}\b", text)]
    assert missing == []


@pytest.mark.parametrize(
    "kind",
    [
        bsa.Allocator,
        bsa.Block,
        bsa.Section,
        bsa.Slab,
        bsa.Stats,
        bsa.Trace,
        bsa.TraceOp,
        bsa.Timeline,
        bsa.PageState,
    ],
    ids=lambda kind: kind.__name__,
)
def test_the_reference_names_every_public_member(kind):
    section = reference_sections()[kind.__name__]
    missing = [
        name for name in public_members(kind) if not re.search(rf"`[^`\n]*\b{name}\b", section)
    ]
    assert missing == []


def test_the_reference_has_the_parameters_of_every_method():
    section = reference_sections()["Allocator"]
    for name, method in inspect.getmembers(bsa.Allocator, callable):
        if name.startswith("_"):
            continue
        parameters = list(inspect.signature(method).parameters)[1:]
        entry = re.search(rf"`{name}\(([^`]*)\)", section)
        assert entry, name
        for parameter in parameters:
            assert re.search(rf"\b{parameter}\b", entry[1]), f"{name}: {parameter}"


def test_the_reference_names_every_command_and_option():
    section = (DOCS / "reference.md").read_text(encoding="utf-8")
    listing = subprocess.run(
        [sys.executable, "-m", "bsa", "--help"], capture_output=True, text=True, check=True
    ).stdout
    commands = re.findall(r"^    (\w+) ", listing, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        assert f"### `python -m bsa {command}" in section, command
        text = subprocess.run(
            [sys.executable, "-m", "bsa", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for option in set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text)) - {"--help"}:
            assert f"`{option}" in section, f"{command} {option}"
