"""The slice that a job scheduler gives to this process: from the environment of Slurm, Kubernetes or SkyPilot.

- Slurm job arrays: https://slurm.schedmd.com/job_array.html
- Kubernetes Indexed Jobs: https://kubernetes.io/docs/tasks/job/indexed-parallel-processing-static/
- SkyPilot: https://docs.skypilot.co/en/latest/running-jobs/environment-variables.html (nodes of one job) and
  https://docs.skypilot.co/en/latest/examples/pools.html (`sky jobs launch --num-jobs`)
"""

from collections.abc import Mapping

from haechi.cache.errors import SettingsError
from haechi.cache.slices import Slice
from haechi.cache.text import shown

# `--slice auto` takes the slice from the environment.
AUTO = "auto"

# Ours: the number of slices, where the scheduler does not say it.
NUM_SLICES = "HAECHI_SLICES"

SLURM, KUBERNETES = "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"
SKYPILOT = ("SKYPILOT_JOB_RANK", "SKYPILOT_NODE_RANK")


def scheduled_slice(environment: Mapping[str, str], *, pinned: int | None) -> Slice:
    """The slice of this process.

    `pinned`: the number of slices of the cache, if it has any. It counts before the number of jobs, so that an array of
    the missing slices, such as `--array=3,7-9`, does them; `HAECHI_SLICES` counts before both.

    Raises `SettingsError` if no scheduler or several are found, if a variable is no whole number, or if nothing says
    how many slices there are.
    """
    found = [name for name in (SLURM, KUBERNETES) if name in environment]
    found += [name for name in SKYPILOT if name in environment][:1]
    if len(found) != 1:
        what = "variables of several job schedulers" if found else "no variable of a job scheduler"
        names = ", ".join(found or (SLURM, KUBERNETES, *SKYPILOT))
        raise SettingsError([f"slice auto: {what} in the environment ({names}); use --slice i/N"])
    (name,) = found
    if name == SLURM:
        number, jobs = _whole(environment, SLURM), _slurm_jobs(environment)
    elif name == KUBERNETES:
        number, jobs = _whole(environment, KUBERNETES), None
    else:
        number, jobs = _skypilot(environment)
    num_slices = _whole(environment, NUM_SLICES) if NUM_SLICES in environment else pinned or jobs
    if num_slices is None:
        why = "this array does not count from 0 without gaps" if name == SLURM else "a completion index has no total"
        raise SettingsError([f"slice auto: the number of slices is not known: {why}; set {NUM_SLICES}"])
    return Slice(number=number, num_slices=num_slices)


def _slurm_jobs(environment: Mapping[str, str]) -> int | None:
    """The number of jobs of an array from 0 without gaps; None for other arrays."""
    names = [f"SLURM_ARRAY_TASK_{name}" for name in ("MIN", "MAX", "COUNT")]
    if any(name not in environment for name in names):
        return None
    first, last, count = (_whole(environment, name) for name in names)
    return count if (first, last) == (0, count - 1) else None


def _skypilot(environment: Mapping[str, str]) -> tuple[int, int]:
    """Number of this node among the nodes of all jobs, and their number."""
    jobs, nodes = (
        (_whole(environment, rank), _whole(environment, total)) if rank in environment else (0, 1)
        for rank, total in zip(SKYPILOT, ("SKYPILOT_NUM_JOBS", "SKYPILOT_NUM_NODES"), strict=True)
    )
    return jobs[0] * nodes[1] + nodes[0], jobs[1] * nodes[1]


def _whole(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise SettingsError([f"slice auto: {name} is {shown(text)} in the environment, expected a whole number from 0"])
    return int(text)
