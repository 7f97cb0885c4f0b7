"""What equalization and bias correction bring without training, and what ranges do.

    python -m benchmarks.post_training --networks mobilenetv2_100 [--data cifar10.npz --teacher-checkpoint FILE]

The networks are those of the conformance matrix, trained as there. 512 training images calibrate. For each way: top-1
on the test split; agreement with the float network's answers; and the signal-to-noise ratio of the logits in decibel,
which tells ways apart where top-1 does not.
"""

import math
import sys
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.conformance import student_of, training_options
from mobilekd.quantization import qat
from mobilekd.quantization.post_training import PostTraining
from mobilekd.stages._training import load_network
from mobilekd.training.data import open_split
from mobilekd.training.loop import predict, top1

CALIBRATION_IMAGES = 512
WAYS = {
    "minmax": PostTraining(activation_range="minmax", weight_range="minmax"),
    "minmax, equalized": PostTraining(activation_range="minmax", weight_range="minmax", equalize=True),
    "moving average": PostTraining(activation_range="moving_average", weight_range="minmax"),
    "percentile": PostTraining(activation_range="percentile", weight_range="minmax"),
    "least error": PostTraining(),
    "least error, biases corrected": PostTraining(correct_biases=True),
    "least error, equalized": PostTraining(equalize=True),
    "least error, equalized, biases corrected": PostTraining(equalize=True, correct_biases=True),
}


def main(arguments: Sequence[str]) -> int:
    """Print a table for each network."""
    options = training_options().parse_args(arguments)
    torch.set_num_threads(options.threads)
    for network in options.networks or ["mobilenetv2_100"]:
        data, student = student_of(network, options)
        train, test = (open_split(data.path, split) for split in ("train", "test"))
        images = torch.from_numpy(train.normalized(slice(0, CALIBRATION_IMAGES)))
        wanted = predict(load_network(student), test)
        print(f"\n{network}: float {top1(wanted, test.labels):.2%} on {len(test.labels)} test images\n")
        print("| way | top-1 | drop (points) | agreement with float | logits, dB |\n|---|---|---|---|---|")
        for way, recipe in WAYS.items():
            prepared = recipe.calibrated(recipe.lowered(load_network(student), images), images.split(64))
            qat.settle_scales(prepared)
            found = predict(prepared, test)
            share, drop = top1(found, test.labels), top1(wanted, test.labels) - top1(found, test.labels)
            agreement = float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean())
            noise = 10 * math.log10(np.square(wanted).sum() / np.square(found - wanted).sum())
            print(
                f"| {way} | {100 * share:.2f} % | {100 * drop:+.2f} | {100 * agreement:.2f} % | {noise:.1f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
