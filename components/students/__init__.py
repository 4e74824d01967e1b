"""The student model: its settings, how it is prompted, loaded, fine-tuned and asked. Stages import the submodules.

Only `settings` and `difficulty` are light; the others import torch and transformers.
"""
