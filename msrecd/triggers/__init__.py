"""Triggers: what makes a recorder begin by itself. Arithmetic on frames and sound, and the decisions made of it.

motion.py and sound.py give scores, decide.py makes begin and end of an event of them. Nothing here knows a recorder.
"""
