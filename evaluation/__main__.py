from evaluation.cli import app

app()
