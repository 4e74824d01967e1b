"""The student model: its settings, how it is prompted, loaded, fine-tuned and asked. Stages import the submodules.

Only `settings` is light; the others import torch and transformers.
"""
