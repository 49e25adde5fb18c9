"""Text after the first gives way while the event loop is late, and only then."""

import asyncio
import time

from seawall.hosts.http.output_throttle import OutputThrottle


async def _late() -> OutputThrottle:
    """A pace that has seen its event loop being blocked."""
    pace = OutputThrottle(0.2, behind=lambda: False)
    await pace.wait()
    await asyncio.sleep(0.03)
    time.sleep(0.1)  # noqa: ASYNC251 - this is what makes the loop late
    await asyncio.sleep(0.005)
    return pace


async def test_no_delay_while_the_loop_is_on_time() -> None:
    pace = OutputThrottle(0.2, behind=lambda: False)
    await pace.wait()
    await asyncio.sleep(0)
    held = asyncio.ensure_future(pace.wait())
    await asyncio.sleep(0)
    assert held.done()


async def test_text_is_delayed_while_the_loop_is_late_up_to_the_maximum() -> None:
    pace = await _late()
    assert 0 < pace.delay <= 0.2
    held = asyncio.ensure_future(pace.wait())
    await asyncio.sleep(0)
    assert not held.done()
    await held


async def test_text_is_delayed_while_turns_wait_for_the_processor() -> None:
    waiting = [True]
    pace = OutputThrottle(0.2, behind=lambda: waiting[0])
    await pace.wait()
    await asyncio.sleep(0.05)
    assert pace.delay == 0.2
    held = asyncio.ensure_future(pace.wait())
    await asyncio.sleep(0)
    assert not held.done()
    waiting[0] = False
    await held
    await asyncio.sleep(0.7)
    assert pace.delay == 0.0


async def test_it_recovers_and_forgets_cancelled_waiters() -> None:
    pace = await _late()
    gone = asyncio.ensure_future(pace.wait())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(1.5)  # long enough for any lag that was seen to fade
    await pace.wait()
    assert gone.cancelled()


async def test_it_can_be_switched_off() -> None:
    pace = OutputThrottle(0.0, behind=lambda: True)
    await pace.wait()
    time.sleep(0.1)  # noqa: ASYNC251 - see above
    await asyncio.sleep(0.05)
    assert pace.delay == 0.0
    await pace.wait()
