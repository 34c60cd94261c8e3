"""Pieces of videos become batches: one is filled while others run. The queue's memory is fixed.

A frame or window that is identical to the one before in its video is not computed again. The last bits of a feature may
depend on how many frames a network computes at once, so a frame is always computed among as many as if there were no
repeats. They may also depend on its place among them: for each number it is tried whether they do, once there were as
many repeats as the trial costs; until then, and if they do, all frames are computed. So the features are the same to
the last bit:

    without repeats, 8 frames at once; video a is a still    a a a a a a a a │ b c d e f g h i
    computed                                                 a b c d e f g h │ i, which waits for 7 more

Frames that are fewer than a network takes at once are computed together; if some of them are repeats, the others wait
for more that would be computed in the same number. What waits too long, or at the end, is filled up with copies.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from haechi.cache.progress import SILENT, Progress
from haechi.cache.schema import STREAMS
from haechi.extract.backbones.repeats import Repeats, Row, Seen
from haechi.extract.backbones.waiting import Task, Waiting

if TYPE_CHECKING:
    import torch

    from haechi.extract.backbones.pair import Backbones, RunningBatch

# Repeats are left out after this many of them, times the number of frames that a network computes at once. To try the
# network costs as much, and so does filling up: otherwise, a single still would take twice as long.
REPEATS_BEFORE = 1

# Names a piece: the index of its video, and the number of the attempt at that video.
Key = tuple[int, int]


class BatchQueue:
    """Batches on their way through the backbones."""

    def __init__(self, backbones: "Backbones", *, progress: Progress = SILENT, num_running: int | None = None) -> None:
        """`num_running`: batches that may run while the next one is filled; None: chosen for the device.

        `progress` gets the notice that batches were made smaller.
        """
        self._backbones, self._progress = backbones, progress
        self._num_running = backbones.max_running if num_running is None else num_running
        self._free: list[dict[str, torch.Tensor]] = []  # made when the first piece comes
        self._filling: list[tuple[Key, dict[str, list[Seen]]]] = []  # the pieces of the batch that is being filled
        self._repeats = Repeats()
        self._num_repeats = Counter[tuple[str, int]]()  # by stream and by how many are computed at once
        self._waiting = Waiting()
        self._running: deque[tuple[dict[str, torch.Tensor], dict[str, list[Row]], RunningBatch]] = deque()
        self._unfinished: deque[tuple[Key, dict[str, list[Row]]]] = deque()  # pieces that wait or run
        self.seconds = dict.fromkeys(STREAMS, 0.0)
        """The device's seconds for all finished batches, by stream."""
        self.num_saved = dict.fromkeys(STREAMS, 0)
        """How many frames and windows were not computed, since identical ones were, by stream; exact after `drain`."""

    def add(self, key: Key, frames: Sequence[np.ndarray]) -> list[tuple[Key, dict[str, np.ndarray]]]:
        """Take the frames of a piece, in the order of the streams: (T, h, w, 3), and one window (num_frames, H, W, 3).

        Without a window, the second array is (0, H, W, 3); a stream without a network is ignored. Returns the pieces
        that are finished, in the order in which they were added: dataset -> rows, float32.
        """
        if not self._free and not self._running:
            self._free = [self._backbones.new_buffers() for _ in range(self._num_running + 1)]
        images, window = frames
        given = dict(zip(STREAMS, (images, window[None] if len(window) else window), strict=True))
        new = {stream: given[stream] for stream in self._backbones.streams}
        finished = []
        if not self._fits({stream: len(array) for stream, array in new.items()}):
            finished += self._start()
        filled = self._filled
        for stream, array in new.items():
            if len(array):
                self._free[-1][stream].numpy()[filled[stream] : filled[stream] + len(array)] = array
        self._filling.append((key, {stream: self._seen(key, stream, array) for stream, array in new.items()}))
        if not self._fits(dict.fromkeys(new, 1)):
            finished += self._start()
        return finished

    def _seen(self, key: Key, stream: str, frames: np.ndarray) -> list[Seen]:
        """One for each frame or window of a piece; repeats share one."""
        if self._backbones.computes_repeats_once:
            return self._repeats.find(*key, stream, frames)
        return [Seen(picture=None) for _ in frames]

    def forget(self, index: int) -> None:
        """No more pieces of this video come."""
        self._repeats.forget(index)

    def drain(self) -> list[tuple[Key, dict[str, np.ndarray]]]:
        """Run the pieces that wait, and return all that are not finished yet, as `add` does."""
        finished = self._start() if self._filling else []
        for stream, tasks in self._waiting.drain():
            finished += self._run({stream: tasks})
        return finished + self._finish(0)

    @property
    def _filled(self) -> dict[str, int]:
        """Stream -> frames or windows in the batch that is being filled."""
        return {stream: sum(len(seen[stream]) for _, seen in self._filling) for stream in self._backbones.streams}

    def _fits(self, counts: Mapping[str, int]) -> bool:
        filled, buffers = self._filled, self._free[-1]
        return all(filled[stream] + count <= len(buffers[stream]) for stream, count in counts.items())

    def _start(self) -> list[tuple[Key, dict[str, np.ndarray]]]:
        """Run the batch that was filled, without repeats and without what waits for more. Returns finished pieces."""
        tasks: dict[str, list[Task]] = {}
        rows: list[dict[str, list[Row]]] = [{} for _ in self._filling]
        for stream in self._backbones.streams:
            seen = [each for _, piece in self._filling for each in piece[stream]]
            tasks[stream], row_of_each = self._without_repeats(stream, seen)
            remaining = iter(row_of_each)
            for piece_rows, (_, piece) in zip(rows, self._filling, strict=True):
                piece_rows[stream] = [next(remaining) for _ in piece[stream]]
        self._unfinished.extend((key, piece_rows) for (key, _), piece_rows in zip(self._filling, rows, strict=True))
        self._filling = []
        finished = self._run(tasks)
        for stream, overdue in self._waiting.next_batch():
            finished += self._run({stream: overdue})
        return finished

    def _without_repeats(self, stream: str, seen: Sequence[Seen]) -> tuple[list[Task], list[Row]]:
        """What to compute now of the n frames or windows in the buffer, and each one's row."""
        frames, size = self._free[-1][stream], self._backbones.batch_size(stream)
        num_whole = len(seen) - len(seen) % size  # computed `size` at once; the rest is computed together
        tasks: list[Task] = []
        rows: list[Row] = []
        for at_once, positions in ((size, range(num_whole)), (len(seen) - num_whole, range(num_whole, len(seen)))):
            new: list[Task] = []
            for position in positions:
                found, frame = seen[position].rows, frames[position]
                if at_once not in found or not self._may_leave_out(stream, frame, at_once):
                    found[at_once] = Row()
                    new.append((frame, found[at_once]))
                rows.append(found[at_once])
            if positions:
                tasks += self._waiting.merge(stream, at_once, new)
        self.num_saved[stream] += len(seen)
        return tasks, rows

    def _may_leave_out(self, stream: str, repeat: "torch.Tensor", at_once: int) -> bool:
        """Whether this repeat is not computed again: after some others, and if bits do not depend on the place."""
        self._num_repeats[stream, at_once] += 1
        enough = self._num_repeats[stream, at_once] >= REPEATS_BEFORE * at_once
        return enough and self._backbones.is_alike_in_all_places(stream, repeat, at_once)

    def _run(self, tasks: Mapping[str, list[Task]]) -> list[tuple[Key, dict[str, np.ndarray]]]:
        """Run frames and windows, which may be in the buffers that were filled. Returns finished pieces."""
        buffers = self._free.pop()
        frames = {stream: _joined(tasks.get(stream, []), buffer) for stream, buffer in buffers.items()}
        counts = {stream: [len(each)] for stream, each in frames.items()}
        self.num_saved = {stream: number - sum(counts.get(stream, [])) for stream, number in self.num_saved.items()}
        batch = self._backbones.start(frames, counts, progress=self._progress)
        rows = {stream: [row for _, row in each] for stream, each in tasks.items()}
        self._running.append((buffers, rows, batch))
        return self._finish(self._num_running)

    def _finish(self, num_left: int) -> list[tuple[Key, dict[str, np.ndarray]]]:
        """Wait for the oldest batches until only `num_left` run. Returns the pieces that are finished."""
        while len(self._running) > num_left:
            buffers, running, batch = self._running.popleft()
            (arrays,), seconds = batch.result()
            self._free.append(buffers)
            self.seconds = {stream: total + seconds[stream] for stream, total in self.seconds.items()}
            for stream, rows in running.items():
                of_stream = {name: values for name, values in arrays.items() if name.startswith(f"{stream}/")}
                for i, row in enumerate(rows):
                    row.features = {name: values[i] for name, values in of_stream.items()}
        finished = []
        while self._unfinished and all(row.features for rows in self._unfinished[0][1].values() for row in rows):
            key, piece = self._unfinished.popleft()
            finished.append(
                (key, {name: values for stream, rows in piece.items() for name, values in self._stacked(stream, rows)})
            )
        return finished

    def _stacked(self, stream: str, rows: Sequence[Row]) -> Iterator[tuple[str, np.ndarray]]:
        """Dataset and its values (n, width) float32 for n rows that are computed."""
        for array, width in self._backbones.widths(stream).items():
            values = np.empty((len(rows), width), np.float32)
            for value, row in zip(values, rows, strict=True):
                assert row.features is not None
                value[:] = row.features[f"{stream}/{array}"]
            yield f"{stream}/{array}", values


def _joined(tasks: Sequence[Task], buffer: "torch.Tensor") -> "torch.Tensor":
    """The frames of tasks (n, ...), not copied if they are the first n of the buffer.

    On a GPU they always are, and it copies them from there by itself, because the buffer is pinned memory.
    """
    own = buffer[: len(tasks)]
    if [frame.data_ptr() for frame, _ in tasks] == [frame.data_ptr() for frame in own]:
        return own
    import torch  # not on top: a run with nothing to do does not load it

    return torch.stack([frame for frame, _ in tasks])
