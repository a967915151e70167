"""Train a small network on pictures of digits: NumPy, and gradients by pyconv.

Three layers, the second one deformable, learn to tell the 8x8 digits of scikit-learn apart by plain
stochastic gradient descent. The same bits come out of every run, on any number of threads.
"""

import numpy as np

import pyconv

BATCH, RATE, MOMENTUM = 32, 0.05, 0.9
HELD_OUT = 360  # images that are not learnt from


def load():
    """Images (N, 1, 8, 8) from 0 to 1 and their digits, in a shuffled order."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(digits))
    return (images[order].reshape(-1, 1, 8, 8) / 16).astype(np.float32), digits[order]


class Layer:
    """An operator, its weights and its parameters; it keeps what its gradients need."""

    def __init__(self, operator, weight, bias, **params):
        self.operator, self.params = pyconv.get(operator), params
        self.weights = {"weight": weight, "bias": bias}
        self.speeds = {name: np.zeros_like(w) for name, w in self.weights.items()}

    def forward(self, *images):
        self.arrays = (*images, *self.weights.values())
        return self.operator(*self.arrays, **self.params)

    def backward(self, grad, needs=("x",)):
        """Gradients of what the layer was given, in the order of `needs`; those of its weights are
        kept for `step`."""
        wanted = (*needs, *self.weights)
        self.grads = self.operator.backward(grad, *self.arrays, needs=wanted, **self.params)
        return [self.grads[name] for name in needs]

    def step(self, rate):
        for name, weight in self.weights.items():
            self.speeds[name] = MOMENTUM * self.speeds[name] - rate * self.grads[name]
            self.weights[name] = weight + self.speeds[name]


class Network:
    """A convolution, a deformable one whose offsets are a convolution too, and a last one."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)

        def weight(*shape):
            scale = np.sqrt(2 / np.prod(shape[1:]))
            return (scale * rng.standard_normal(shape)).astype(np.float32)

        def zeros(*shape):
            return np.zeros(shape, np.float32)

        self.first = Layer("standard", weight(12, 1, 3, 3), zeros(12), padding="same")
        # Two coordinates for each of the nine taps. Taps begin where those of an ordinary
        # convolution are, a little apart so that a coordinate is no integer.
        self.offset = Layer(
            "standard", zeros(18, 12, 3, 3), zeros(18) + np.float32(0.1), stride=2, padding=1
        )
        self.second = Layer("deformable", weight(24, 12, 3, 3), zeros(24), stride=2, padding=1)
        self.third = Layer("standard", weight(10, 24, 4, 4), zeros(10))
        self.layers = (self.first, self.offset, self.second, self.third)

    def forward(self, images):
        """Scores (N, 10): the larger, the likelier."""
        self.hidden = np.maximum(self.first.forward(images), 0)
        self.bent = np.maximum(
            self.second.forward(self.hidden, self.offset.forward(self.hidden)), 0
        )
        return self.third.forward(self.bent)[:, :, 0, 0]

    def backward(self, grad):
        """Gradients of all weights, from that of the scores."""
        (grad,) = self.third.backward(grad[:, :, None, None])
        by_x, by_offset = self.second.backward(grad * (self.bent > 0), ("x", "offset"))
        (through_offset,) = self.offset.backward(by_offset)
        self.first.backward((by_x + through_offset) * (self.hidden > 0), needs=())

    def learn(self, images, digits, rate):
        """One step of gradient descent; returns the loss before it."""
        scores = self.forward(images)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = scores / scores.sum(axis=1, keepdims=True)
        rows = np.arange(len(digits))
        loss = -np.log(probabilities[rows, digits]).mean()
        probabilities[rows, digits] -= 1
        self.backward(probabilities / np.float32(len(digits)))
        for layer in self.layers:
            layer.step(np.float32(rate))
        return float(loss)


def train(images, digits, epochs=12, seed=0):
    """Return a network that has learnt from the images, and the mean loss of every epoch."""
    network, rng, losses = Network(seed), np.random.default_rng(seed), []
    for epoch in range(epochs):
        rate = RATE * (1 - epoch / epochs)
        order = rng.permutation(len(digits))
        batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        losses.append(np.mean([network.learn(images[b], digits[b], rate) for b in batches]))
    return network, losses


def accuracy(network, images, digits):
    """Part of the images whose digit has the highest score."""
    return float(np.mean(network.forward(images).argmax(axis=1) == digits))


def main():
    images, digits = load()
    network, losses = train(images[HELD_OUT:], digits[HELD_OUT:])
    print("loss by epoch:", *(f"{loss:.3f}" for loss in losses))
    right = accuracy(network, images[:HELD_OUT], digits[:HELD_OUT])
    print(f"right on {HELD_OUT} images that it has not seen: {right:.1%}")


if __name__ == "__main__":
    main()
