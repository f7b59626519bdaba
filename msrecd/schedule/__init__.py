"""When to record: windows planned from schedules, and what overrides them."""

from msrecd.schedule.model import TRUSTED, Plan, ScheduleError, Trust, Window
from msrecd.schedule.moments import problem_of
from msrecd.schedule.planner import Planner

__all__ = ["TRUSTED", "Plan", "Planner", "ScheduleError", "Trust", "Window", "problem_of"]
