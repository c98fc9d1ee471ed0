"""Maintenance windows of the settings, beside the gateway's own reading of them."""

from hypothesis import given
from hypothesis import strategies as st

from settings.maintenance import DAY, WEEK, MaintenanceWindow, parse_window
from userdata.files import patches


@st.composite
def windows(draw: st.DrawFn) -> MaintenanceWindow:
    is_daily = draw(st.booleans())
    period = DAY if is_daily else WEEK
    return MaintenanceWindow(draw(st.integers(0, period - 1)), draw(st.integers(30, period - 1)), is_daily)


@given(windows())
def test_the_gateway_reads_what_the_settings_write(window: MaintenanceWindow) -> None:
    assert parse_window(str(window)) == window
    read = patches.read_window(str(window))
    assert (read.start, read.minutes) == (window.start, window.minutes)


@given(windows(), st.integers(0, WEEK - 1))
def test_the_halves_of_a_window_never_meet(window: MaintenanceWindow, minute: int) -> None:
    period = DAY if window.is_daily else WEEK
    within = [(minute - half.start) % period < half.minutes for half in (window.half(0), window.half(1))]
    assert not all(within)
    assert any(within) == ((minute - window.start) % period < window.minutes // 2 * 2)


def test_halves_cross_the_end_of_the_week_and_of_the_day() -> None:
    assert [str(parse_window("sun:23:30-mon:00:30").half(n)) for n in (0, 1)] == [
        "sun:23:30-mon:00:00",
        "mon:00:00-mon:00:30",
    ]
    assert str(parse_window("23:00-01:00").half(1)) == "00:00-01:00"
