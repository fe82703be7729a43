"""Zero-shot evaluation of image-text models: tasks as data, images encoded once, errors with every number."""

from evaluation.clip.tasks import Task, TaskList, load_tasks

__all__ = ["Task", "TaskList", "load_tasks"]
