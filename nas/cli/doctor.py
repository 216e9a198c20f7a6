HELP = ""


def command() -> None:
    pass
