"""Runs as processes of this machine, which `processes` starts."""

from __future__ import annotations

import time
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from critique_rl.experiment.processes import set_environment, start, warm_up
from critique_rl.experiment.progress import Job


class LocalRuns:
    """Each run is a process of this machine.

    Args:
        jobs: Runs at a time.
    """

    is_elsewhere = False

    def __init__(self, jobs: int) -> None:
        self.limit = jobs
        self.at_once = jobs
        self._running: list[tuple[Job, BaseProcess]] = []

    @property
    def busy(self) -> int:
        """Runs that were started and have not ended."""
        return len(self._running)

    def prepare(self) -> None:
        """Begin to import what runs are forked from."""
        set_environment(self.limit)
        warm_up()

    def start(self, job: Job) -> None:
        """Start a job's process."""
        process = start(job.command, job.folder.log)
        self._running.append((job, process))
        job.status = "running"
        job.started = time.monotonic()

    def take_ended(self, seconds: float) -> list[Job]:
        """Wait for a process to end, and take the jobs whose process has.

        Args:
            seconds: The longest wait.

        Returns:
            These jobs, with their status.
        """
        sentinels = [process.sentinel for _, process in self._running]
        wait(sentinels, timeout=seconds)
        ended = []
        for job, process in list(self._running):
            code = process.exitcode
            if code is None:
                continue
            job.status = "finished" if code == 0 else f"failed ({code})"
            job.seconds = time.monotonic() - job.started
            self._running.remove((job, process))
            ended.append(job)
        return ended

    def stop(self) -> None:
        """Ask the runs to stop, and wait for their checkpoints.

        Raises:
            KeyboardInterrupt: On a second Ctrl-C; the runs are killed.
        """
        for _, process in self._running:
            process.terminate()
        try:
            for _, process in self._running:
                process.join()
        except KeyboardInterrupt:
            for _, process in self._running:
                process.kill()
            raise

    def close(self) -> None:
        """Nothing is held."""
