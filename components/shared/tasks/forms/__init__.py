"""Task forms: how a form's questions are asked, and its answers read and graded."""
