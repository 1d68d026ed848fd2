import io
import sys
from types import SimpleNamespace

import pytest

from scld import progress
from scld.progress import progress_bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when the test says so."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_says_stage_share_text_and_times(clock, capsys):
    with progress_bars(True) as bar:
        update = bar("1/4 autoencoder", 3)
        clock[0] += 65
        update(1, "validation loss 2.5")
        clock[0] += 3600
        update(3, "best")
    assert capsys.readouterr().err.splitlines() == [
        "1/4 autoencoder: 1/3 (33 %), validation loss 2.5, 0:01:05 elapsed, 0:02:10 left",
        "1/4 autoencoder: 3/3 (100 %), best, 1:01:05 elapsed",
    ]


def test_lines_are_not_cut_and_hold_no_control_characters(capsys):
    text = "x" * 300
    with progress_bars(True) as bar:
        bar("a", 2)(1, f"{text}\x1b[31m")
    err = capsys.readouterr().err
    assert text in err
    assert "\x1b" not in err


@pytest.mark.parametrize(("total", "lines"), [(1, 1), (30, 30), (31, 31), (5000, 31)])
def test_many_steps_share_a_line(total, lines, capsys):
    with progress_bars(True) as bar:
        update = bar("sample", total)
        for done in range(1, total + 1):
            update(done, "")
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) <= lines
    assert f"{total:,}/{total:,} (100 %)" in shown[-1]


def test_the_last_line_is_not_repeated_unless_it_says_something_else(capsys):
    with progress_bars(True) as bar:
        update = bar("a", 2)
        for text in ("one", "one", "two"):
            update(2, text)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_without_progress_nothing_is_shown(capsys):
    with progress_bars(False) as bar:
        bar("a", 2)(1, "text")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("term", "has_bars"), [("xterm-256color", True), ("dumb", False)])
def test_a_terminal_gets_bars(term, has_bars, monkeypatch):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bars(True) as bar:
        bar("sample", 2)(2, "text")
    assert ("━" in sys.stderr.getvalue()) is has_bars
    assert "2/2" in sys.stderr.getvalue()


def test_an_error_ends_the_bars(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())

    def failing():
        with progress_bars(True) as bar:
            bar("sample", 2)
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        failing()


def test_a_notebook_has_one_line_for_each_bar_written_anew(clock, monkeypatch, capsys):
    written = []

    class ZMQInteractiveShell:
        pass

    class DisplayHandle:
        def display(self, content, raw):
            written.append([content["text/plain"]])

        def update(self, content, raw):
            written[-1].append(content["text/plain"])

    shell = SimpleNamespace(get_ipython=ZMQInteractiveShell)
    display = SimpleNamespace(DisplayHandle=DisplayHandle)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with progress_bars(True) as bar:
        update = bar("a", 2)
        clock[0] += 3
        update(2, "done")
        bar("b", 5)
    assert written == [
        ["a: 0/2 (0 %), 0:00:00 elapsed", "a: 2/2 (100 %), done, 0:00:03 elapsed"],
        ["b: 0/5 (0 %), 0:00:00 elapsed"],
    ]
    assert capsys.readouterr().err == ""
