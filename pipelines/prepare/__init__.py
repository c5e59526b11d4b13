"""From a raw data set to a prepared one: plan → shard tasks → commit. engines.py decides where the tasks run."""

from imgtool.pipelines.prepare.run import Limits, Summary, dry_plan, prepare

__all__ = ["Limits", "Summary", "dry_plan", "prepare"]
