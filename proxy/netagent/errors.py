"""What can go wrong in the net agent; each text is one line for the user."""


class NetAgentError(Exception):
    """Something failed while the set-up was made, kept or undone (exit code 1)."""


class MachineLacksError(NetAgentError):
    """This machine lacks a privilege, a device or a program (exit code 4)."""
