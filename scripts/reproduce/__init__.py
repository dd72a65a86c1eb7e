"""Train the presets that reproduce published GANs, score what the service returns, write docs/results.

    python -m scripts.reproduce --data-root data                           # every run at its full length
    python -m scripts.reproduce mnist-gan --data-root data --minutes 10    # one run, ten minutes of training
    python -m scripts.reproduce --pages                                    # only write the pages again

The two halves can run on two machines. Only the first needs a GPU, and it needs neither the service nor evaluation's
HTTP client. The second needs only the folder that the first one fills, WORK/collected:

    python -m scripts.reproduce train cifar10-best mnist --data-root data --jobs 2
    python -m scripts.reproduce score reproduce/collected --data-root data

`collect` fills that folder from the runs as they are, without training. Each training and each score is a command of
this repository and is printed before it runs. Give the same command again to resume.
"""
