"""The tables that the drills work on."""
