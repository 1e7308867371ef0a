"""Drills: something is broken on purpose while work goes on, and a checker counts by id what it cost."""
