"""What is in a workspace, and its removal; `mgc list` and `mgc remove`."""
