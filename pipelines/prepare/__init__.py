"""From a raw data set to a prepared one: plan → shard tasks → commit; where the tasks run (engines.py)."""

from imgtool.pipelines.prepare.run import Limits, Summary, dry_plan, prepare

__all__ = ["Limits", "Summary", "dry_plan", "prepare"]
