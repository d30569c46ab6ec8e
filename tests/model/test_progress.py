import io
from types import SimpleNamespace

from model import progress
from model.splits import divide_as_configured
from model.streams import make_streams
from tests.model.films import film_table
from tests.model.runs import run, short


class PausesAtValidation(io.StringIO):
    """A clock that moves on by a second at each look, and by an hour at each validation's line."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def monotonic(self):
        self.now += 1.0
        return self.now

    def write(self, printed):
        if "score" in printed:
            self.now += 3600.0
        return super().write(printed)


def test_the_rate_is_that_of_the_steps_and_not_of_the_validations_between(tmp_path, monkeypatch):
    printed = PausesAtValidation()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=printed.monotonic))
    table, config = film_table(16), short("paper")
    text = run(table, config, tmp_path, printed=printed)
    assert text.count("score") == 3
    (last,) = [line for line in text.splitlines() if line.startswith("step 6/6")]
    pools = divide_as_configured(table.records, config)
    images = make_streams(table.records, pools, config).images_per_step
    assert f"{images}.0 images/s" in last
