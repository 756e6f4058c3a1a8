"""Short dialogues: customer and clerk, doctor and patient, friends (marks: see scenes.py)."""

from __future__ import annotations

from kogpt2_gluon.demo.sentences.scenes import Scene

TALKS = (
    Scene(
        "talk_plan",
        5,
        "hae",
        "{person}: {person2}~아, {weekday}에 [시간 있어|뭐 해|바빠]?",
        """
        {person2}: [아니, 괜찮아|아직 약속 없어|오후에는 한가해]. [왜|무슨 일이야]?
        {person}: 나랑 {city}에 놀러 <가 을래>? {cityfood}도 <먹 고> <싶 pres>
        {person2}: [좋아|그래]. 몇 시에 만날까?
        {person}: {time}에 [기차역|버스 터미널|학교|도서관] 앞에서 만나. {snack}~은 {my}가 <사 promise>
        """,
        """
        {person2}: [알았어|좋아]. {weekday} {time}, 잊지 <않 promise>
        {person2}: 그럼 {drink}~은 {my}가 <사 promise>. 그때 <보 let>
        """,
        True,
    ),
    Scene(
        "talk_shop",
        6,
        "haeyo",
        "손님: [안녕하세요|저기요|실례합니다]. {product} 하나 보여 주세요",
        """
        점원: 네, 손님. 이 {brand} {product}~은 <어떻 hon.ask>?
        손님: {aspect}~은 <괜찮 ask>?
        점원: 네, {aspect}~이 좋아서 많이들 <찾 hon.pres>. 가격은 {price}<이 pres>
        손님: [조금 비싸네요. 깎아 주실 수 있어요?|생각보다 싸네요.|마음에 들어요.]
        점원: [오늘|이번 주에] 사시면 {5~30/5}% 싸게 <드리 promise>
        """,
        """
        손님: 그럼 {brand}~으로 <사 promise>
        손님: 조금 더 생각해 보고 다시 <오 promise>
        """,
        True,
    ),
    Scene(
        "talk_food",
        5,
        "haeyo",
        "손님: 여기 {dish} {1~4 한} {unit} 주세요",
        """
        주인: 네, {dish}~은 {10~25/5}분쯤 <걸리 pres>. <괜찮 hon.ask>?
        손님: 네, <괜찮 pres>. {dish}~은 맛이 <어떻 ask>?
        주인: {main}~이 들어가서 맛이 <{taste} pres>. {ing}도 넣어 <드리 promise>
        손님: [네, 부탁드려요.|아니요, {ing}~은 빼 주세요.]
        """,
        """
        주인: 맛있게 드셨어요? 손님: 네, 정말 맛있었어요. 한 {unit}에 얼마예요? 주인: {7000~15000/500 원}<이 pres>
        주인: 맛있게 <드시 req>
        """,
        True,
    ),
    Scene(
        "talk_way",
        5,
        "haeyo",
        "관광객: 실례합니다. {sight}에 가려면 어떻게 해야 해요?",
        """
        시민: {sight}~은 여기서 버스로 {5~40}분쯤 <걸리 pres>. {2~99}번을 <타 req>
        관광객: 요금은 얼마<이 ask>?
        시민: {1200~1900/50 원}<이 pres>. {3~12 한} 정거장 뒤에 <내리 hon.req>
        관광객: {sight} 근처에 {cityfood} 먹을 만한 곳도 <있 ask>?
        시민: 그럼요, {city}에 오셨으니 {cityfood}~은 꼭 <드시 req>
        """,
        "관광객: 친절하게 알려 주셔서 <감사하 pres>",
        True,
    ),
    Scene(
        "talk_clinic",
        4,
        "haeyo",
        "의사: 어디가 <아프 hon.ask>?",
        """
        환자: {since}부터 [목|머리|배|허리]~이 <아프 pres>. [열도 조금 <있 pres>|잠도 잘 못 <자 pres>]
        의사: 열이 {37.1~38.9}도<이 ne>. 약을 {3~7}일 치 <드리 promise>. 하루에 {2~3 한} 번 <드시 req>
        환자: [커피|술|{drink}]~은 마셔도 <되 ask>?
        의사: 당분간은 [따뜻한 물을 자주|약을 꼭|죽을] 드시고 푹 <쉬 hon.req>
        """,
        "환자: 네, <감사하 pres>. [월|화|수|목|금]요일에 다시 <오 promise>",
        True,
    ),
)
