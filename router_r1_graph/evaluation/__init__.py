"""Evaluation: any controllers over any questions, with intervals, controls and every dollar."""
