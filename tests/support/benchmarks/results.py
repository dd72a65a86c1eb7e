"""Results as the parts of `make bench` write them, made up."""

from typing import Any


def spread(median: float, low: float, high: float) -> dict[str, float]:
    return {"median": median, "min": low, "max": high}


LOAD = [0.5, 1.5]
MACHINE: dict[str, Any] = {
    "cpu": "Some Processor",
    "cpu_model": "family 1, model 2",
    "instructions": ["AVX2", "AVX-512 BF16"],
    "cores": 2,
    "memory_gib": 8.0,
    "system": "Linux",
    "gpu": None,
    "python": "3.11.7",
    "torch": "2.15.0",
    "load_average_before": 0.5,
}
TRAINING: dict[str, Any] = {
    "machine": MACHINE,
    "failed": {"mnist-gan": "its loop ended by itself"},
    "results": [
        {
            "case": "examples-dcgan",
            "preset": "celeba-dcgan",
            "plain_loop": "examples",
            "peer": "dcgan/main.py, unmodified",
            "images": "digits",
            "batch_size": 64,
            "precision": "bf16",
            "images_per_second": {"peer": 50.0, "plain": 52.0, "trainer": 110.0},
            "ratio_to_plain": spread(2.11, 2.0, 2.4),
            "ratio_to_peer": spread(2.2, 1.9, 2.3),
            "plain_to_peer": spread(1.04, 0.9, 1.1),
            "load_average": LOAD,
        }
    ],
}
SERVING: dict[str, Any] = {
    "machine": MACHINE,
    "clients": 32,
    "images_per_request": 4,
    "generators": {
        "mnist-dcgan": {
            "bare": {"images_per_s": 1000.0, "batch": 8},
            "npy": {"images_per_s": 650.0, "ratio_spread": spread(0.65, 0.6, 0.7)},
            "json": {"images_per_s": 600.0, "ratio_spread": spread(0.6, 0.55, 0.65)},
            "alone": {"p50_ms": 2.0, "bare_ms": 1.0, "ratio_spread": spread(0.5, 0.4, 0.6)},
            "load_average": LOAD,
        }
    },
}
SERVING_PEERS: dict[str, Any] = {
    "machine": MACHINE,
    "clients": 32,
    "images_per_request": 4,
    "peers": {
        "mnist-dcgan": {
            "gan_atelier_npy": {"images_per_s": 600.0},
            "fastapi_torch_npy": {"images_per_s": 300.0},
            "times_as_fast": {"gan_atelier_npy/fastapi_torch_npy": spread(2.0, 1.9, 2.1)},
            "load_average": LOAD,
        }
    },
}
EVALUATION: dict[str, Any] = {
    "frechet": {
        "machine": MACHINE,
        "features": 2048,
        "load_average": LOAD,
        **{
            case: {
                "images": 1000,
                "ours_s": 1.0,
                "pytorch_fid_s": 20.0,
                "torch_fidelity_s": 4.0,
                "times_as_fast": {"pytorch_fid": spread(20.0, 18.0, 22.0), "torch_fidelity": spread(4.0, 3.0, 5.0)},
            }
            for case in ("full_rank", "singular", "nearly_full_rank")
        },
    },
    "inception": {
        "machine": MACHINE,
        "ours_images_per_s": 32.0,
        "ours_tf1_images_per_s": 14.0,
        "pytorch_fid_images_per_s": 10.0,
        "torch_fidelity_images_per_s": 7.0,
        "times_as_fast": {"pytorch_fid": spread(3.2, 3.1, 3.3), "torch_fidelity": spread(2.0, 1.9, 2.1)},
        "load_average": LOAD,
    },
    "metrics": {
        "machine": MACHINE,
        "images": 3000,
        "load_average": LOAD,
        **{
            metric: {
                "ours_s": 2.0,
                "torch_fidelity_s": 1.0,
                "times_as_fast": {"torch_fidelity": spread(0.5, 0.4, 0.6)},
            }
            for metric in ("fid", "kid", "is", "prc", "together")
        },
    },
    "command": {
        "machine": MACHINE,
        "images_a_side": 128,
        "ours_s": 30.0,
        "torch_fidelity_s": 60.0,
        "times_as_fast": {"torch_fidelity": spread(2.0, 1.9, 2.1)},
        "load_average": LOAD,
    },
    "score": {
        "machine": MACHINE,
        "images": 10_000,
        "generating_s": 9.0,
        "extracting_s": 1.0,
        "scoring_s": 11.0,
        "times_as_fast": {"the_two": spread(0.91, 0.9, 0.95)},
        "load_average": LOAD,
    },
    "failed": {},
}
DOCUMENTS = {
    "train_step": TRAINING,
    "serving": SERVING,
    "serving_peers": SERVING_PEERS,
    "evaluation": EVALUATION,
}
