"""Problems and the judging of their answers: tasks, verifiers, rewards."""

from critique_rl._lazy import lazy

__getattr__ = lazy(
    __name__,
    {
        "load_task": "critique_rl.tasks.load",
        "Task": "critique_rl.tasks.task",
        "build_verifier": "critique_rl.tasks.isolated_verifiers",
        "VERIFIERS": "critique_rl.tasks.verifiers",
    },
)
