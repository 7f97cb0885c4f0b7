"""How often does the interval of a paired loss hold the true loss? 20,000 draws of each; docs/gates.md has the result.

python -m benchmarks.paired_interval
"""

import numpy as np

from mobilekd.release.paired import counted_drop

_DRAWS = 20_000
_IMAGES = (36, 200, 360, 10_000)
_SHARES = ((0.01, 0.01), (0.02, 0.0), (0.04, 0.02), (0.1, 0.05))


def main() -> None:
    """Print a line for each number of images and true shares of images lost and won."""
    rng = np.random.default_rng(0)
    print("images  lost  won   held   half width, points")
    for images in _IMAGES:
        for lost, won in _SHARES:
            kinds = rng.multinomial(images, [1 - lost - won, lost, won], size=_DRAWS)
            drops = [counted_drop(int(row[1]), int(row[2]), images) for row in kinds]
            held = np.mean([one.is_near(lost - won) for one in drops])
            width = 50 * np.mean([one.high - one.low for one in drops])
            print(f"{images:<7} {lost:<5} {won:<5} {held:.3f}  {width:.2f}")


if __name__ == "__main__":
    main()
