"""The stages of the loop, in the order in which data flows, and the rooms that they share.

prepare -> train -> evaluate -> (out_of_fold) -> filter_errors -> teacher_augment -> dedupe -> train ..., with a report
after each evaluation. Each stage is a folder: `component.py` is its face for Kubeflow, the module named like the stage
holds the plain Python, `settings.py` what can be set. Shared: `rows`, `tasks`, `students`, and the small modules here.
"""
