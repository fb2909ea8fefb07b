"""What people look at: text summary, figures, HTML report and timeline trace of a run.

Everything here reads a Result and changes nothing. plotly is imported when a figure is drawn.
"""
