"""Several processes: gradients averaged (DDP), parameters sharded (FSDP2), values exchanged."""
