"""A bar appears for what takes long, and only then."""

from gumlab import progress


def test_what_is_quick_shows_nothing_and_what_takes_long_a_bar(monkeypatch, capsys):
    assert list(progress.shown(range(3), "scores", "layer")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "DELAY", 0)
    assert list(progress.shown("ab", "scores", "layer")) == ["a", "b"]
    assert "scores" in capsys.readouterr().err
