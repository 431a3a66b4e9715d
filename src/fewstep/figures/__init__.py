"""Figures: functions that take data and write a picture. They need Matplotlib, which is imported when one is drawn."""
