"""Lines are printed as they are, whatever is in them; progress is drawn for the main process alone."""

from __future__ import annotations

from rich.text import Text

from surgdino import console


def test_lines_hold_any_text_and_are_never_wrapped(capsys):
    path = "/data/[red]OR 3[/red]/" + "x" * 200
    console.say(path)
    console.warn("the frame is dark")
    console.field("report", path)
    assert capsys.readouterr().out.splitlines() == [path, "! the frame is dark", f"report     {path}"]


def test_tables_hold_any_text(capsys):
    table = console.new_table("[red]by", caption="[/b] below")
    table.add_column("[/bold]")
    for cell in ("[red]x", Text("op[/x]", "bold"), "a\x1b[2Jb", Text("c\x1b]0;d")):
        table.add_row(cell)
    console.table(table)
    console.say("e\x1b[31m")
    said = capsys.readouterr().out
    assert "\x1b" not in said
    for text in ("[red]by", "[/b] below", "[/bold]", "[red]x", "op[/x]", "a\\x1b[2Jb", "c\\x1b]0;d", "e\\x1b[31m"):
        assert text in said


def test_lines_come_on_stderr_while_a_bar_is_shown(capsys):
    with console.bar("{training}", total=3, shown=False) as bar:
        bar.update(1, text="loss [1]")
        bar.advance()
        console.say("above it")
    console.say("below it")
    assert capsys.readouterr() == ("below it\n", "above it\n")


def test_other_processes_are_quiet(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    console.say("x")
    with console.bar("training", total=3) as bar:
        bar.update(3)
    assert capsys.readouterr() == ("", "")
