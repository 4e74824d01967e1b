"""Fine-tuning a student: encoding, packing, methods, checkpoints, several devices."""
