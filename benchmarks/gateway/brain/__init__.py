"""What our side needs to be measured: its settings, and a clock that is wrong."""
