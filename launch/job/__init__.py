"""Jobs for launchers and schedulers: what to start, on which machine, as a command or as a script."""
