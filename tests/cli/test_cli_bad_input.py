"""Bad input to the commands leads to exit code 2 and a message on stderr, and leaves all files unchanged."""

import subprocess
import sys

import numpy as np
import pytest

from lazynet import cli

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
MNIST = ["--dataset", "mnist", "--n-train", "8", "--n-test", "4"]

# Arguments of `lazynet sweep`, followed by the argument and the value that the line on stderr must name.
BAD = {
    "class": ("--classes 0 ten", "--classes", "ten"),
    "class out of range": ("--classes 0 12", "--classes", "12"),
    "one class": ("--classes 4", "--classes", "4"),
    "same class twice": ("--classes 3 3", "--classes", "label 3 more than once"),
    "same class in a group": ("--classes even 2", "--classes", "label 2 more than once"),
    "no activation": ("--activation", "axes['activation']", "empty"),
    "momentum": ("--momentum 1", "--momentum", "1.0"),
    "width below 1": ("--widths 16 0", "width", "0"),
    "negative width": ("--widths -4", "width", "-4"),
    "no width": ("--widths", "--widths", "empty"),
    "repeated width": ("--widths 16 8 16", "--widths", "16 more than once"),
    "odd width": ("--widths 8 17", "width", "17"),
    "odd narrow width": ("--widths 7 16", "width", "7"),
    "seeds": ("--seeds 0", "--seeds", "0"),
    "negative seeds": ("--seeds -1", "--seeds", "-1"),
    "steps": ("--steps 0", "--steps", "0"),
    "snapshots": ("--snapshots 0", "--snapshots", "0"),
    **{
        f"learning rate {rate}": (f"--learning-rate {rate}", "--learning-rate", rate)
        for rate in ("0", "-1", "-0.5", "nan", "inf")
    },
    "batch": ("--batch-size 0", "--batch-size", "0"),
    "label noise": ("--label-noise 1.5", "--label-noise", "1.5"),
    "scale": ("--init-scale 0", "--init-scale", "0.0"),
    **{f"tolerance {value}": (f"--tolerance {value}", "--tolerance", value) for value in ("0.0", "1.0", "-0.1", "nan")},
    "tolerance without gaps": ("--tolerance 0.1 --no-predictions", "--tolerance", "--no-predictions"),
    "n_train": ("--n-train 100000", "--n-train", "100000"),
    "n_train below 1": ("--n-train 0", "--n-train", "0"),
    "n_test": ("--n-test 100000", "--n-test", "100000"),
}

# Arguments that the parser itself refuses, and what its message must contain.
UNREADABLE = {
    "--dataset imagenet": ("--dataset", "imagenet", "fashion-mnist"),
    "--activation sine": ("--activation", "sine", "softplus"),
    "--optimizer adammm": ("--optimizer", "adammm", "adagrad"),
    "--dtype float16": ("--dtype", "float16", "float64"),
    "--train everything": ("--train", "everything", "readout"),
    "--steps many": ("--steps", "many"),
    "--learning-rate fast": ("--learning-rate", "fast"),
    "--width 64": ("--width", "Perhaps you meant", "--widths"),
}


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("training was started")

    monkeypatch.setattr(sys.modules["lazynet.experiment._cell"], "train_members", refuse)


def refused(capsys, *arguments):
    """Run a command that must be refused, and return its only line on stderr."""
    code = cli.main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    assert code == 2, shown.err
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("lazynet: ")
    return lines[0]


@pytest.mark.parametrize("case", BAD)
def test_sweep_refuses(case, capsys, no_training, tmp_path):
    arguments, name, value = BAD[case]
    out = tmp_path / "runs" / "new"
    line = refused(capsys, "sweep", *arguments.split(), "--out", out)
    assert line.startswith(f"lazynet: {name} ")
    assert value in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", ["--resume", "--max-seconds 5", "--shard 1/2"])
def test_flags_of_a_folder_need_one(flags, capsys, no_training):
    assert refused(capsys, "sweep", *flags.split()).startswith("lazynet: --out must be a folder if --")


INFINITE_WIDTH = (
    *("class", "steps", "snapshots", "learning rate 0", "learning rate nan", "scale", "n_train", "n_test"),
)


@pytest.mark.parametrize("case", INFINITE_WIDTH)
def test_infinite_width_refuses(case, capsys, tmp_path):
    arguments, name, value = BAD[case]
    out = tmp_path / "runs" / "new"
    line = refused(capsys, "infinite-width", *arguments.split(), "--out", out)
    assert line.startswith(f"lazynet: {name} ")
    assert value in line
    assert list(tmp_path.iterdir()) == []


def test_infinite_width_refuses_its_own_flags(capsys):
    line = refused(capsys, "infinite-width", "--n-train", 8, "--tolerance", 0)
    assert line.startswith("lazynet: --tolerance ")
    assert cli.main(["infinite-width", "--storage", "cloud"]) == 2
    assert "--storage" in capsys.readouterr().err


@pytest.mark.parametrize("case", ["class", "same class twice", "n_train", "n_train below 1"])
def test_complexity_refuses(case, capsys):
    arguments, name, _ = BAD[case]
    assert refused(capsys, "complexity", *arguments.split(), "--json").startswith(f"lazynet: {name} ")


@pytest.mark.parametrize("command", ["status", "merge"])
def test_a_folder_without_a_study_is_refused(command, capsys, tmp_path):
    assert " study" in refused(capsys, command, tmp_path)


@pytest.mark.slow
def test_check_is_refused_without_a_verdict(capsys, tmp_path):
    cli.main(["infinite-width", "--n-train", "8", "--steps", "3", "--out", str(tmp_path / "run")])
    capsys.readouterr()
    assert refused(capsys, "merge", tmp_path / "run", "--check").startswith("lazynet: --check must be False ")


@pytest.mark.parametrize("content", ["", "result.nc"])
def test_an_output_folder_that_exists_is_refused_and_untouched(content, capsys, no_training, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    if content:
        (out / content).write_text("old")
    before = out.stat().st_mtime_ns
    line = refused(capsys, "sweep", "--out", out)
    assert line.startswith("lazynet: --out must be a new folder")
    assert str(out) in line
    assert out.stat().st_mtime_ns == before
    assert [path.read_text() for path in out.iterdir()] == ["old"] * bool(content)
    assert list(tmp_path.iterdir()) == [out]


def test_fetching_an_unknown_data_set_is_refused(capsys):
    assert "imagenet" in refused(capsys, "data", "fetch", "imagenet")


def idx(array):
    array = np.asarray(array, np.uint8)
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write four files in MNIST's format, with 20 training and 10 test images of 3x3 pixels from classes 0 and 1."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(1, 256, size=(30, 3, 3)), np.arange(30) % 2
    for name, array in zip(IDX, (images[:20], labels[:20], images[20:], labels[20:]), strict=True):
        (folder / name).write_bytes(idx(array))
    monkeypatch.setenv("LAZYNET_DATA", str(folder.parent))
    return folder


def replace(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


def with_label(label):
    return lambda content: content[:8] + bytes([label]) + content[9:]


def with_image(number, pixels):
    return lambda content: content[: 16 + 9 * number] + bytes(pixels) + content[16 + 9 * (number + 1) :]


FILES = {
    "images cut short": (0, lambda content: content[:-1], "is 195 bytes long"),
    "labels cut short": (1, lambda content: content[:-3], "is 25 bytes long"),
    "header cut short": (0, lambda content: content[:9], "is 9 bytes long"),
    "empty": (1, lambda content: b"", "magic number"),
    "trailing bytes": (0, lambda content: content + b"\0", "is more than 196 bytes long"),
    "wrong magic number": (0, lambda content: b"\0\0\x0d\x03" + content[4:], "magic number"),
    "label out of range": (1, with_label(11), "has the label 11"),
    "zero row": (0, with_image(2, [0] * 9), "got only zeros in row 2"),
}


@pytest.mark.parametrize("command", ["sweep", "complexity"])
@pytest.mark.parametrize("case", FILES)
def test_broken_files_are_refused(case, command, files, capsys, no_training, tmp_path):
    number, change, words = FILES[case]
    replace(files, IDX[number], change)
    out = ["--out", tmp_path / "run"] if command == "sweep" else []
    line = refused(capsys, command, *MNIST, *out)
    assert words in line
    if case != "zero row":
        assert IDX[number] in line
    assert not (tmp_path / "run").exists()


def test_whole_files_are_taken(files, capsys):
    assert cli.main(["complexity", *MNIST]) == 0
    assert "complexity" in capsys.readouterr().out


def test_a_class_that_the_data_set_lacks_is_refused(files, capsys):
    assert "got 7" in refused(capsys, "complexity", "--dataset", "mnist", "--classes", 0, 7)


@pytest.mark.slow
def test_identical_rows_are_named(files, capsys):
    """Identical rows are an error in `complexity`; `sweep` only warns, and Lemma C.1 is undecided in its verdict."""
    replace(files, IDX[0], lambda content: with_image(5, content[16 + 9 : 16 + 18])(content))
    assert "rows 1 and 5" in refused(capsys, "complexity", *MNIST)
    code = cli.main(["sweep", *MNIST, "--widths", "8", "--seeds", "1", "--steps", "2"])
    shown = capsys.readouterr()
    assert code == 0
    assert "rows 1 and 5" in shown.err
    assert len(shown.err.splitlines()) == 1
    lemma = next(line for line in shown.out.splitlines() if "Lemma C.1" in line)
    assert "undecided" in lemma


@pytest.mark.slow
def test_as_a_program(tmp_path):
    command = [sys.executable, "-m", "lazynet", "sweep", "--steps", "0", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("lazynet: --steps ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", UNREADABLE)
def test_flags_that_cannot_be_read_end_with_2(arguments, capsys):
    assert cli.main(["sweep", *arguments.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(words in shown.err for words in UNREADABLE[arguments])


def test_an_unknown_command_is_answered_with_the_commands(capsys):
    assert cli.main(["sweeep"]) == 2
    assert "Available subcommands: sweep, width, verify" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--widths 64 63", "width must be even if symmetric=True, got 63. Use width=64 or --no-symmetric."),
        ("--rows 5", "--rows must be omitted without --no-predictions, because predictions need all examples."),
        ("--depth 2", "--depth must be omitted for --family two-layer; only an mlp has a depth."),
        (
            "--family mlp --no-symmetric",
            "--no-symmetric must be omitted for --family mlp, whose units are never paired.",
        ),
        ("--target y", "--target must be omitted without --data."),
        ("--standardize", "--standardize must be omitted without --data."),
        ("--split-seed 3", "--split-seed must be omitted without --data."),
        ("--data missing.csv", "path must be a file, got 'missing.csv'."),
        ("--network mine", "--network must be MODULE:FACTORY, such as mine:make, got 'mine'."),
        (
            "--network no_such_module:make",
            "--network must name a module that can be imported, but No module named 'no_such_module'.",
        ),
        ("--network json:nothing", "--network must name a function or a class in json, got 'nothing', which is None."),
        ("--network json:loads", "--network must name a function without arguments, got 'json:loads', whose arguments"),
        ("--network uuid:getnode", "--network must name a function that returns a network, got int."),
        ("--network a:b --depth 3", "--depth 3 must be omitted with --network."),
        ("--network a:b --activation erf", "--activation erf must be omitted with --network."),
        ("--family mlp --depth 0", "--depth must be a positive integer, got 0."),
    ],
)
def test_messages_name_flags_as_they_are_typed(flags, message, capsys, no_training):
    assert refused(capsys, "sweep", *flags.split()).startswith(f"lazynet: {message}")


@pytest.mark.slow
def test_a_reader_that_ends_early_sees_no_traceback():
    command = f"{sys.executable} -m lazynet sweep --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("usage: lazynet sweep")
    assert done.stderr == ""


ESCAPE = "\x1b]0;title\x07\x1b[31m"


@pytest.mark.parametrize("command", ["status", "merge", "data list", "sweep", "infinite-width"])
def test_names_of_files_reach_the_terminal_without_escape_codes(command, tmp_path, monkeypatch, capsys):
    folder = tmp_path / f"run{ESCAPE}\udcff"
    folder.mkdir()
    (folder / IDX[0]).write_bytes(b"no images")
    (folder / IDX[1]).write_bytes(b"no labels")
    for name in IDX[2:]:
        (folder / name).write_bytes(b"")
    monkeypatch.setenv("LAZYNET_DATA", str(folder))
    options = {"status": [folder], "merge": [folder], "sweep": [*MNIST, "--out", folder], "infinite-width": MNIST}
    cli.main([*command.split(), *map(str, options.get(command, []))])
    captured = capsys.readouterr()
    assert "x1b]0;title" in captured.out + captured.err
    assert all(c.isprintable() or c in "\n\t" for c in captured.out + captured.err)
