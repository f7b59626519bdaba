import logging

class JournalHandler(logging.Handler):
    def __init__(self, level: int = 0, SYSLOG_IDENTIFIER: str = ...) -> None: ...
