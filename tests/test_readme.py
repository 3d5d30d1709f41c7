"""The README and the pages of docs/: their code runs, and the files, names and arguments that they name exist."""

import ast
import importlib
import inspect
import re
import shlex
from configparser import ConfigParser
from pathlib import Path

import pytest

import benchmarks.__main__ as benchmarks
import lazynet as lz
from lazynet import cli
from lazynet.measures import registered

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("benchmarks", "docs", "lazynet", "scripts", "tests", ".ci")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def blocks(page, language):
    """Return the code blocks in one language as pairs of their text and the words after the language."""
    fences = re.findall(r"^```(\w+)([^\n]*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [(text, words.split()) for name, words, text in fences if name == language]


def prose(page):
    """Return the page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def inline_code(page):
    return re.findall(r"`([^`]+)`", prose(page))


def commands(page):
    """Return the commands of the sh blocks as lists of words."""
    lines = [line for text, _ in blocks(page, "sh") for line in text.splitlines()]
    return [shlex.split(part) for line in lines for part in line.split("&&")]


def anchors(page):
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.whole
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_python_runs(page, tmp_path, monkeypatch):
    """The code blocks of a page share their variables, as in an interactive session."""
    monkeypatch.chdir(tmp_path)
    before, names = registered(), {"__name__": page.stem}
    for text, words in blocks(page, "python"):
        code = compile(text, page.name, "exec")
        if "no-run" not in words:
            exec(code, names)
    assert registered() == before
    for file in re.findall(r'savefig\("(.+?)"\)', page.read_text()):
        assert (tmp_path / file).stat().st_size > 10_000


@every_page
def test_commands_are_read_by_the_command_line(page, capsys):
    for program, *words in commands(page):
        if program == "lazynet":
            assert cli.parse(words) is not None, capsys.readouterr().err
        if [program, *words[:2]] == ["python", "-m", "benchmarks"] and words[2:]:
            assert words[2] in benchmarks.benchmarks()


@every_page
def test_links_lead_to_pages_and_headings(page):
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        file, _, heading = target.partition("#")
        path = page.parent / file if file else page
        assert path.is_file(), target
        assert not heading or heading in anchors(path), target


@every_page
def test_files_that_are_named_exist(page):
    words = [word for code in inline_code(page) for word in code.split()]
    words += [word for command in commands(page) for word in command]
    top = {path.name for path in ROOT.iterdir() if path.is_file()}
    for word in words:
        if word.split("/")[0] in FOLDERS and "/" in word:
            assert (ROOT / word).exists(), word
        elif re.fullmatch(r"\.?\w+\.(toml|txt|md)|\.importlinter|LICENSE", word):
            assert word in top, word


@every_page
def test_names_and_arguments_exist(page):
    for code in inline_code(page):
        for dotted in re.findall(r"\b(?:lz|lazynet)(?:\.\w+)+", code):
            value(dotted)
        for call in calls(code):
            parameters = inspect.signature(value(ast.unparse(call.func))).parameters
            given = [argument.arg for argument in call.keywords]
            assert set(given) <= set(parameters), code
            assert len(given) + len(call.args) <= len(parameters), code


def value(dotted):
    """Return the object with a name such as `lz.sweep` or `lazynet.theory.population_bound`."""
    first, *names = dotted.split(".")
    assert first == "lazynet" or names[0] in (*lz.__all__, "measures"), dotted
    result = lz
    for name in names:
        if not hasattr(result, name):
            importlib.import_module(f"{result.__name__}.{name}")
        result = getattr(result, name)
    return result


def calls(code):
    """Return the calls of lazynet's functions in inline code, or an empty list if it is not Python."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except SyntaxError:
        return []
    named = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [node for node in named if ast.unparse(node.func).startswith(("lz.", "lazynet."))]


def test_the_index_lists_all_pages():
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", (ROOT / "docs" / "index.md").read_text()))
    assert linked == {page.name for page in PAGES[1:]} - {"index.md"}


def test_the_table_of_rooms_has_the_order_of_the_import_contract():
    contract = ConfigParser()
    contract.read(ROOT / ".importlinter")
    layers = contract["importlinter:contract:rooms"]["layers"].split("\n")
    ranks = {room.strip(): rank for rank, layer in enumerate(layers) for room in layer.split("|") if room.strip()}
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", (ROOT / "docs" / "contributing.md").read_text(), re.MULTILINE)
    rooms = [room for row in rows for room in re.findall(r"`(\w+)`", row)]
    assert sorted(rooms) == sorted(ranks)
    assert [ranks[room] for room in rooms] == sorted(ranks.values())
