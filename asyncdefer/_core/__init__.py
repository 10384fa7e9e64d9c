"""The pure core: every rule of when a job runs, without I/O and without an event loop."""
