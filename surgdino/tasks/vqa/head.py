"""A head that answers questions about a frame from its class and patch tokens.

Shapes: B frames, N patches, D the width, K questions a frame, H heads, E the width of a question, A answers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.errors import SurgdinoError
from surgdino.tasks.vqa.learned import Learned

_AT_ONCE = 64  # questions


class QuestionHead(nn.Module):
    """Each question pools the patches with queries of its own; what it saw moves the answers from their shares in
    training, which are what the question alone says.

    A question's vector is its own plus the mean of its words', so that rare questions share what common words mean.

    Args:
        width: D.
        classes: the A answers.
        learned: the questions.
        question_width: E.
        pool_heads: H, which must divide D.
        hidden: units of the hidden layer.
        dropout: on what it reads, while training.
    """

    log_prior: Tensor
    bags: Tensor

    def __init__(
        self,
        width: int,
        classes: tuple[str, ...],
        learned: Learned,
        *,
        question_width: int,
        pool_heads: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if width % pool_heads:
            what, expected = "the pooling heads do not divide the backbone's width", f"a divisor of {width}"
            raise SurgdinoError(what, place="task.pool_heads", expected=expected, found=pool_heads)
        words, bags = learned.words()
        self.width, self.heads = width, pool_heads
        self.register_buffer("bags", torch.from_numpy(bags), persistent=False)
        self.register_buffer("log_prior", torch.from_numpy(learned.log_prior(classes)), persistent=False)
        self.own = nn.Parameter(torch.zeros(len(bags), question_width))
        self.words = nn.Parameter(torch.empty(len(words), question_width))
        self.query = nn.Linear(question_width, pool_heads * width)
        self.values = nn.Parameter(torch.empty(pool_heads, width, width // pool_heads))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.dropout = nn.Dropout(dropout)
        self.read = nn.Linear(2 * width + question_width, hidden)
        self.answer = nn.Linear(hidden, len(classes))
        nn.init.normal_(self.words)
        nn.init.normal_(self.values, std=width**-0.5)
        nn.init.normal_(self.query.weight, std=0.02)
        nn.init.normal_(self.answer.weight, std=0.01)
        nn.init.zeros_(self.answer.bias)

    def forward(self, cls: Tensor, patches: Tensor, asked: Tensor) -> Tensor:
        """Logits float32 [B, K, A], minus infinity of answers to other kinds of questions.

        Args:
            cls: [B, D].
            patches: [B, N, D].
            asked: int64 [B, K], places of the questions; -1 where a frame is asked no more.
        """
        place = asked.clamp(min=0)
        question = F.embedding(place, self.own + self.bags @ self.words)  # [B, K, E]
        patches = self.norm(patches)
        queries = self.query(question).unflatten(-1, (self.heads, self.width))
        weights = (torch.einsum("bkhd,bnd->bkhn", queries, patches) * self.width**-0.5).softmax(-1)
        seen = torch.einsum("bkhn,bnd->bkhd", weights, patches)
        pooled = torch.einsum("bkhd,hde->bkhe", seen, self.values).flatten(2)
        whole = self.norm(cls)[:, None].expand_as(pooled)
        read = self.dropout(torch.cat([whole, self.norm(pooled), question], -1))
        return self.answer(F.gelu(self.read(read))).float() + self.log_prior[place]

    def probabilities(self, cls: Tensor, patches: Tensor, asked: Tensor) -> Tensor:
        """float32 [B, K, A], some questions at a time."""
        blocks = asked.split(_AT_ONCE, 1)
        return torch.cat([self(cls, patches, block).softmax(-1) for block in blocks], 1)
