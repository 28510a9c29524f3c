"""Train a lattice machine on the digits in a plain PyTorch loop: no trainer, no configuration, forty lines.

python examples/plain_loop.py
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.losses import Activity, BranchingResponse
from lmn_graph.projectors import Linear
from lmn_graph.readouts import Rate
from lmn_graph.rules import SpikingSOC

torch.manual_seed(0)
steps, epochs, batch_size = 12, 12, 64
x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = (
    torch.as_tensor(part) for part in train_test_split(x.astype("float32") / 16, y, test_size=0.25, stratify=y, random_state=0)
)

graph = topologies.grid(8, dim=3, radius=1)  # any other graph goes here
rule = SpikingSOC(graph)  # any other rule goes here
machine = LatticeMachine(graph, Linear((64,), graph), rule, Rate(graph, 10, steps), steps=steps)

criticality, activity = BranchingResponse(target=1.0, samples=8), Activity(target=0.15)
optimizer = torch.optim.AdamW(machine.parameters(), lr=3e-3)
for epoch in range(epochs):
    for index in torch.randperm(len(x_train)).split(batch_size):
        output = machine(x_train[index])
        loss = torch.nn.functional.cross_entropy(output.prediction, y_train[index])
        loss = loss + 0.3 * criticality(output, machine=machine, x=x_train[index])
        loss = loss + activity(output, machine=machine, x=x_train[index])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(machine.parameters(), 1.0)
        optimizer.step()
    accuracy = (machine.predict(x_test).argmax(1) == y_test).float().mean()
    print(f"epoch {epoch + 1:2d}  loss {loss:.3f}  test accuracy {accuracy:.3f}")
