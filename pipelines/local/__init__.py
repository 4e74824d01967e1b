"""The loop on this machine: in this process, in subprocesses, in containers."""
