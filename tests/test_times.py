import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from auditplane.times import SECOND_US, epoch_seconds, format_all, format_us, offset_seconds, parse_rfc3339

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_US = -62_135_596_800 * SECOND_US  # 0001-01-01T00:00:00Z
LAST_US = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z

moments = st.integers(0, LAST_US)
offsets = st.integers(-(24 * 60 - 1), 24 * 60 - 1)
# Years whose days stay within the calendar of datetime at every offset.
local_times = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31))  # noqa: DTZ001 - the offset is drawn


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@given(moments)
@example(0)
@example(LAST_US)
@example(951_782_400 * SECOND_US)  # 2000-02-29
def test_a_moment_is_written_as_datetime_writes_it_and_read_back(us: int) -> None:
    text = format_us(us)
    assert text == (EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds")[:26] + "Z"
    assert parse_rfc3339(text) == us


@given(st.lists(moments | st.integers(0, 3 * SECOND_US), max_size=9))
def test_many_moments_are_written_as_one_is(many: list[int]) -> None:
    assert format_all(many) == list(map(format_us, many))


@given(moments, moments)
def test_texts_are_in_the_order_of_the_moments(one: int, other: int) -> None:
    assert (format_us(one) < format_us(other)) == (one < other)


@given(local_times, offsets, st.text("0123456789", max_size=30), st.sampled_from("Tt"))
def test_a_time_with_any_offset_and_fraction_is_what_datetime_makes_of_it(
    local: datetime, minutes: int, fraction: str, separator: str
) -> None:
    local = local.replace(microsecond=int(fraction[:6].ljust(6, "0")))
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    day, clock = f"{local.year:04}{local:-%m-%d}", f"{local:%H:%M:%S}"
    point = "." if fraction else ""
    moment = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = f"{day}{separator}{clock}{point}{fraction}{sign}{hours:02}:{rest:02}"
    assert parse_rfc3339(text) == microseconds(moment)


@given(moments, st.integers(0, 6))
def test_z_and_a_zero_offset_mean_the_same(us: int, cut: int) -> None:
    text = format_us(us)[: 26 - cut].rstrip(".")
    readings = {parse_rfc3339(text + suffix) for suffix in ("Z", "z", "+00:00", "-00:00")}
    assert len(readings) == 1


@pytest.mark.parametrize("year", [1970, 1900, 2000, 2024, 2100, 2400, 9999])
def test_every_month_has_the_days_of_the_calendar(year: int) -> None:
    for month in range(14):
        for day in range(33):
            try:
                expected = (datetime(year, month, day, tzinfo=UTC) - EPOCH).days * 86_400
            except ValueError:
                with pytest.raises(ValueError, match="no such day"):
                    epoch_seconds(year, month, day)
            else:
                assert epoch_seconds(year, month, day) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-03-18",
        "2026-03-18T18:21:09",
        "2026-03-18T18:21:09.Z",
        "2026-03-18 18:21:09Z",
        "2026-03-18T18:21:60Z",
        "2026-03-18T24:00:00Z",
        "2026-03-18T18:60:00Z",
        "2026-02-29T00:00:00.000000Z",
        "2026-13-01T00:00:00.000000Z",
        "2026-00-01T00:00:00.000000Z",
        "2026-01-00T00:00:00.000000Z",
        "0000-01-01T00:00:00.000000Z",
        "2026-03-18T18:21:09+24:00",
        "2026-03-18T18:21:09+00:60",
        "2026-03-18T18:21:09+02",
        "2026-03-18T18:21:09+0200",
        "2026-03-18T18:21:09.٠٠٠٠٠١Z",
        "2026-03-18T18:21:09.0_0_01Z",
        "2026-03-18T18:21:09. 00001Z",
        "2026-03-18T18:21:09.+00001Z",
        "٢٠٢٦-03-18T18:21:09.000001Z",
        "2026-03-18T18:21:09.000001Z\n",
        "2026-03-18T18:21:09.0000001Z"[:27],
        "+026-03-18T18:21:09.000001Z",
        "2026-03-18T18:21:09." + "0" * 31 + "Z",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_rfc3339(text)


@given(st.text("0123456789-:.TtZz+ ", max_size=30) | st.text(max_size=30))
def test_any_text_is_a_moment_or_a_value_error(text: str) -> None:
    try:
        us = parse_rfc3339(text)
    except ValueError:
        return
    assert re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt]", text)
    assert FIRST_US <= us <= LAST_US


def test_an_offset_does_not_lead_out_of_the_calendar() -> None:
    assert parse_rfc3339("0001-01-01T01:00:00+01:00") == FIRST_US
    assert parse_rfc3339("9999-12-31T22:59:59.999999-01:00") == LAST_US
    for text in ("0001-01-01T00:59:59+01:00", "9999-12-31T23:00:00-01:00"):
        with pytest.raises(ValueError, match="no such year"):
            parse_rfc3339(text)


def test_offsets_count_east_of_greenwich() -> None:
    assert offset_seconds("+", "05", "30") == 19_800
    assert offset_seconds("-", "05", "30") == -19_800
    assert offset_seconds("+", "02", None) == 7_200
    for hours, minutes in (("24", "00"), ("00", "60")):
        with pytest.raises(ValueError, match="no such offset"):
            offset_seconds("+", hours, minutes)
