"""A language model of two recurrent layers in NumPy: forward, and back through time, by hand.

    python examples/from_scratch.py

It learns the first pages of The Time Machine character by character. Sequences are rows, so that
W x of the equations is x W here. At the end elman gets the same weights and must find the same
numbers: outputs, loss and every gradient.

    h_t = tanh(x_t W + h_{t−1} U + b)    in layer 1; in layer 2, x_t is layer 1's h_t
    o_t = h_t V + c                      L = −mean log softmax(o_t)[the next character]
"""

import numpy as np

from elman.data import corpora

# T steps of B sequences; M characters, H units in a layer.


def draw(M, H, seed=0):
    """The weights by name, uniform in ±1/√H."""
    shapes = {"W1": (M, H), "U1": (H, H), "b1": (H,)}  # layer 1
    shapes |= {"W2": (H, H), "U2": (H, H), "b2": (H,)}  # layer 2
    shapes |= {"V": (H, M), "c": (M,)}  # output
    random = np.random.default_rng(seed)
    return {name: random.uniform(-(H**-0.5), H**-0.5, shape) for name, shape in shapes.items()}


def layer(x, h, W, U, b):
    """One layer at all steps: x (T, B, M), and h (B, H) from before the first."""
    states = []
    for x_t in x:
        h = np.tanh(x_t @ W + h @ U + b)  # (B, M)(M, H) + (B, H)(H, H) + (H) = (B, H)
        states.append(h)
    return np.stack(states)  # (T, B, H)


def layer_backward(dh, x, h, before, W, U):
    """∂L/∂x, ∂L/∂W, ∂L/∂U, ∂L/∂b of one layer, where dh (T, B, H) reaches each h_t from above."""
    dx, dW, dU, db = np.zeros_like(x), np.zeros_like(W), np.zeros_like(U), np.zeros(len(U))
    from_later = np.zeros_like(before)  # (B, H): what reaches h_t from step t + 1; at the end, 0
    for t in reversed(range(len(x))):
        dz = (dh[t] + from_later) * (1 - h[t] ** 2)  # (B, H), since tanh' = 1 − tanh²
        dW += x[t].T @ dz  # (M, B)(B, H) = (M, H)
        dU += (h[t - 1] if t > 0 else before).T @ dz  # (H, B)(B, H) = (H, H)
        db += dz.sum(0)  # (H)
        dx[t] = dz @ W.T  # (B, H)(H, M) = (B, M)
        from_later = dz @ U.T  # (B, H)(H, H) = (B, H)
    return dx, dW, dU, db


def forward(w, codes, before):
    """From codes (T, B) to the input, the states of both layers and the outputs."""
    x = np.eye(len(w["c"]))[codes]  # one-hot: (T, B, M)
    h1 = layer(x, before[0], w["W1"], w["U1"], w["b1"])  # (T, B, H)
    h2 = layer(h1, before[1], w["W2"], w["U2"], w["b2"])  # (T, B, H)
    return x, h1, h2, h2 @ w["V"] + w["c"]  # (T, B, H)(H, M) + (M) = (T, B, M)


def backward(w, codes, targets, before):
    """The loss, its gradient by each weight, and the states to go on from."""
    x, h1, h2, o = forward(w, codes, before)
    p = np.exp(o) / np.exp(o).sum(-1, keepdims=True)  # softmax: (T, B, M)
    y = np.eye(len(w["c"]))[targets]  # (T, B, M)
    loss = -np.log((p * y).sum(-1)).mean()
    do = (p - y) / targets.size  # (T, B, M): softmax and cross-entropy in one
    d = {"V": np.einsum("tbh,tbm->hm", h2, do), "c": do.sum((0, 1))}
    dh = do @ w["V"].T  # (T, B, M)(M, H) = (T, B, H)
    dh, d["W2"], d["U2"], d["b2"] = layer_backward(dh, h1, h2, before[1], w["W2"], w["U2"])
    _, d["W1"], d["U1"], d["b1"] = layer_backward(dh, x, h1, before[0], w["W1"], w["U1"])
    return loss, d, (h1[-1], h2[-1])


def train(w, text, epochs, batch=32, steps=35, rate=2.0, threshold=1.0):
    """Truncated BPTT by gradient descent with clipping; the perplexity of each epoch."""
    rows = text[: len(text) // batch * batch].reshape(batch, -1).T  # (T, B): pieces of the text
    perplexities = []
    for epoch in range(1, epochs + 1):
        losses, before = [], np.zeros((2, batch, len(w["U1"])))  # (layers, B, H)
        for k in range(0, len(rows) - steps, steps):  # the state goes on, the gradient does not
            loss, d, before = backward(w, rows[k : k + steps], rows[k + 1 : k + steps + 1], before)
            norm = np.sqrt(sum((g**2).sum() for g in d.values()))  # of all gradients as one vector
            for name, g in d.items():
                w[name] -= rate * g * min(1, threshold / norm)
            losses.append(loss)
        perplexities.append(np.exp(np.mean(losses)))
        if epoch == 1 or epoch % 5 == 0:
            print(f"epoch {epoch:2}: perplexity {perplexities[-1]:5.2f}")
    return perplexities


def distances(w, codes, targets):
    """The largest difference between elman's numbers and these, for outputs, loss and gradients."""
    import torch

    import elman

    M, H = w["W1"].shape
    rnn = elman.Recurrent(elman.cells.Elman(M, H, dtype=torch.float64), layers=2)
    head = torch.nn.Linear(H, M, dtype=torch.float64)
    theirs = dict(zip(w, [*rnn.parameters(), *head.parameters()], strict=True))
    with torch.no_grad():
        for name, parameter in theirs.items():
            parameter.copy_(torch.tensor(w[name].T))  # torch.nn keeps W as (H, M)
    o = head(rnn(torch.eye(M, dtype=torch.float64)[torch.tensor(codes)])[0])
    loss = torch.nn.functional.cross_entropy(o.flatten(0, 1), torch.tensor(targets).flatten())
    loss.backward()

    before = np.zeros((2, codes.shape[1], H))
    ours, d, _ = backward(w, codes, targets, before)
    found = {"outputs": abs(forward(w, codes, before)[-1] - o.detach().numpy()).max()}
    found["loss"] = abs(ours - loss.item())
    for name, parameter in theirs.items():
        found[f"∂L/∂{name}"] = abs(d[name].T - parameter.grad.numpy()).max()
    return found


def main(epochs=30, hidden=128):
    """Train, then compare: the perplexity of each epoch, and the distances."""
    book = corpora.find("time-machine").paths()[0].read_text(encoding="utf-8").lower()
    letters = " ".join("".join(c if "a" <= c <= "z" else " " for c in book).split())[:10_000]
    alphabet = sorted(set(letters))
    text = np.array([alphabet.index(c) for c in letters])
    w = draw(len(alphabet), hidden)
    perplexities = train(w, text, epochs)
    window = text[: 8 * 21].reshape(8, 21).T  # (T + 1, B)
    found = distances(w, window[:-1], window[1:])
    print("elman differs by", ", ".join(f"{d:.0e} in {name}" for name, d in found.items()))
    return perplexities, found


if __name__ == "__main__":
    main()
