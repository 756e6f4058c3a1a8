"""The topics of the sample text: one scene is one kind of document.

A template is a line of Korean with four marks, which :mod:`kogpt2_gluon.demo.sentences.sample_text` reads:

    [a|b|c]        one of several, possibly nothing; may be nested
    {city}         a word of the document, drawn at its first use and kept; {friend2} is another friend
    {3~9}          a new figure each time: {1000~9000/500 원} is money in steps of 500, {2~9 한} a native number word,
                   {10~90 일} a Sino-Korean one, {1.5~4.5} has one decimal, {1000~90000 ,} has commas
    <보 past>      a predicate: a final mood in the document's style, or an ending (<보 아서>); 이 is the copula
    ~은            a particle that agrees with the word before it

A document has an opening, some of the middle lines in their order, and perhaps a closing; so a line may refer back
only to the opening. A script uses every middle line.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scene:
    """One kind of document; `styles` are those of sample_grammar.STYLES that suit it, `weight` how often it comes."""

    name: str
    weight: int
    styles: str
    opening: str
    middle: str
    closing: str = ""
    script: bool = False


PLAIN = "haeyo haera hae"
WRITTEN = "hapnida haera"
REVIEW = "haeyo hapnida haera hae eum"

SCENES = (
    Scene(
        "weather_diary",
        5,
        PLAIN,
        """
        오늘 {city}~은 아침부터 [날씨가|날이] <{air} past>
        {season}~이 <되 아서> 날씨가 많이 <{air} past>
        {when} [갑자기|하루 종일] {rain}~이 <내리 past>
        """,
        """
        기온은 {low}도에서 {high}도 사이<이 past>
        우산이 없어서 [옷이 다 <젖 past>|편의점에서 {3500~12000/500 원}짜리 우산을 <사 past>]
        창밖을 <보 으니> [나뭇잎의 빛깔이|구름이|사람들의 옷차림이] 어제와 <다르 past>
        {wear}~을 챙겨서 {place}~으로 <나가 past>
        {drink}~을 마시며 [창밖을 <바라보 past>|책을 <읽 past>|음악을 <듣 past>]
        길이 <막히 아서> [회사|학교]에 {10~50}분이나 <늦 past>
        {season}~을 <좋아하 는> {friend}에게 사진을 <보내 past>
        """,
        """
        내일은 하늘이 <맑 으면> <좋 guess>
        [다음 주|주말]에는 {place}에 <가 아> <보 plan>
        {season}~은 [늘|언제나] 이렇게 [갑자기|조용히] <오 pres>
        """,
    ),
    Scene(
        "recipe",
        10,
        "haeyo hapnida haera",
        """
        {dish}~은 {main}~과 {ing}만 <있 으면> 집에서도 쉽게 만들 수 <있 pres>
        [오늘은|이번에는] {dish} {2~6}인분을 만드는 법을 <소개하 pres>
        {main}~을 듬뿍 넣은 {dish}~은 맛이 <{taste} pres>
        {dish}~을 만들려면 먼저 {main}~을 [넉넉하게|적당히] <준비하 pres>
        """,
        """
        재료는 {main}, {ing}, 그리고 {ing2}<이 pres>
        {main}~은 [미리|먼저] 손질하고 {ing}~은 [나중에 넣을 수 있게|따로] 그릇에 <담 아> <두 pres>
        [국간장|소금|액젓] {1~3 한} [숟가락|작은술]~으로 간을 <맞추 pres>
        [이제|그다음에] {how} <{cook} pres>
        {ing2}~은 [맨 나중에|불을 끄기 전에|마지막에] <넣 으면> [맛|향]~이 <좋 pres>
        너무 <싱겁 으면> [소금|간장]~을 조금 더 넣고, 너무 <짜 으면> {ing}~을 더 <넣 pres>
        """,
        """
        [가족|친구]~과 함께 <먹 으면> 더 <맛있 pres>
        남은 {dish}~은 [냉장고에|뚜껑이 있는 그릇에] <넣 으면> {2~4}일쯤 두고 먹을 수 <있 pres>
        다 만드는 데 {20~60/5}분쯤 <걸리 pres>
        """,
    ),
    Scene(
        "diary",
        10,
        PLAIN,
        """
        {when} {friend}~과 함께 {place}에 <가 past>
        {when} 오랜만에 {friend}~을 <만나 past>
        {friend}~이 {when} 우리 동네에 <오 past>
        요즘 {I}는 {friend}~과 {hobby}에 푹 <빠지 아> <있 pres>
        """,
        """
        {friend}~은 요즘 {job}~으로 <일하 고> <있 pres>
        우리는 {drink}~과 {snack}~을 먹으면서 {2~5 한} 시간 동안 이야기를 <나누 past>
        {friend}~은 {hobby}~을 시작한 지 {2~11}개월쯤 <되 past>
        {friend}~이 [시장|편의점|가게]에서 {snack}~을 {2000~9000/500 원}어치 <사 past>
        {fruit}도 {2~8 한} 개 사서 나누어 <먹 past>
        {friend}~이 들려준 [여행|학교|직장|어린 시절] 이야기가 무척 <재미있 past>
        {my}가 요즘 읽는 {booktopic} 책 이야기를 했더니 {friend}도 읽고 싶다고 <하 past>
        헤어질 때 {friend}에게 [작은 선물|책 한 권|꽃 한 다발]~을 <받 past>
        """,
        """
        집에 오니 {8~11 한} 시가 넘었지만 마음이 <편하 past>
        {friend}~과는 {weekday}에 다시 만나기로 <하 past>
        [참|정말|오랜만에] 즐거운 하루<이 past>
        {friend}~이 있어서 [참|정말] <든든하 pres>
        """,
    ),
    Scene(
        "family",
        9,
        "haeyo hapnida haera",
        """
        {elder}께서 {when} 우리 집에 <오 hon.past>
        {when} {elder} 댁에 <다녀오 past>
        {elder}께서는 [시골|바닷가|{town}]에 혼자 <살 hon.pres>
        {elder}께서는 올해 {71~94 일} 세가 <되 hon.past>
        """,
        """
        {elder}께서는 [아침마다|날마다] {2~5 일} 킬로미터를 <걷 hon.pres>
        {elder}께서 {dish}~을 맛있게 <드시 past>
        {elder}께서 좋아하시는 {fruit}~을 {2~9 한} 개 <사 past>
        {elder}께서는 [옛날|전쟁 때|젊은 시절] 이야기를 [천천히|재미있게] 들려 <주 hon.past>
        {elder}께서는 {hobby}~을 무척 <좋아하 hon.pres>
        {elder}께 {hobby2}~을 좋아하느냐고 여쭈어 보니 웃기만 <하 hon.past>
        {relative}도 {elder}께 {drink}~을 타 <드리 past>
        {elder}께서는 요즘 [무릎|허리]~이 조금 <아프 hon.pres>. [병원에 <모시 고> <가 past>|쉬시라고 <말씀드리 past>]
        밤이 되자 {elder}께서는 일찍 <주무시 past>
        """,
        """
        {elder}께서 오래오래 <건강하 으셨으면> <좋 guess>
        {elder}께 자주 전화를 <드리 으려고> <하 pres>
        [다음 달|설|추석]에 {elder}~을 다시 <뵈 plan>
        """,
    ),
    Scene(
        "school",
        7,
        "haeyo haera hapnida",
        """
        {teacher}께서 {when} {subject} 숙제를 내 <주 hon.past>
        우리 학교 {teacher}께서는 {city}에서 <태어나 hon.past>
        {when} {teacher}께 {subject} 문제를 <여쭤보 past>
        {when} {subject} 시험을 봤는데 {70~100}점을 <받 past>. {teacher}께서 <칭찬하 아> <주 hon.past>
        """,
        """
        {teacher}께서는 어려운 내용도 쉽게 <설명하 hon.pres>
        숙제는 {booktopic}에 관한 책을 읽고 {2~5}쪽짜리 글을 쓰는 것<이 pres>
        우리 반 학생 {21~34}명 가운데 {3~19}명이 {subject2}~을 가장 <좋아하 pres>
        {friend}~은 {subject}~을 잘하지만 {subject2}~은 <어려워하 pres>
        {I}는 {friend}~과 도서관에서 {1~4 한} 시간 동안 <공부하 past>
        수업은 [월|화|수|목|금]요일 {2~6 일} 교시에 <있 pres>
        {teacher}께서 틀린 문제를 다시 풀어 보라고 <말씀하시 past>
        """,
        """
        {teacher}처럼 [좋은|따뜻한] 사람이 되고 <싶 pres>
        다음 시험에서는 더 좋은 점수를 <받 plan>
        {teacher}께 감사하다고 <말씀드리 past>
        """,
    ),
    Scene(
        "office",
        7,
        "haeyo hapnida haera",
        """
        {boss}께서 {weekday} 회의를 {time}~으로 <미루 hon.past>
        {weekday} {time}에 회의가 <있 pres>. {boss}께서도 <참석하 hon.pres>
        {boss}께서 {company}에 보낼 [계약서|견적서|보고서]~을 찾으신다고 <하 past>
        {I}는 {company}에서 {2~15 일} 년째 <일하 고> <있 pres>
        """,
        """
        회의실은 {2~12 일} 층이고 [자료|보고서]~은 {3~40}쪽<이 pres>
        이번 [행사|출장|계약]의 예산은 {300~9500/100 ,}만 원<이 pres>
        {boss}께서는 {city}~으로 출장을 <가 hon.past>
        {fullname} 씨가 발표를 <맡 past>
        {fullname} 씨는 {date}까지 [보고서|번역|설문 조사]~을 끝내겠다고 <하 past>
        점심은 {boss}께서 <사 hon.past>. 모두 {dish}~을 <먹 past>
        [파일|자료]~은 PDF로 만들어 e메일로 <보내 past>
        """,
        """
        {boss}께서 수고했다고 <말씀하시 past>
        회의가 <길어지 아서> 밤 {8~11}시에 <퇴근하 past>
        다음 회의는 {date2}에 <하 plan>
        """,
    ),
    Scene(
        "notice",
        8,
        "hapnida",
        """
        안녕하세요, 고객님. {store}<이 pres>
        주문하신 {product}~이 {date} 출고되었습니다. {store}<이 pres>
        {brand} {product}~을 구매해 주셔서 <감사하 pres>
        저희 매장은 {date}부터 {2~6}일간 <쉬 pres>
        """,
        """
        주문 번호는 {100000~999999 y}이고 결제 금액은 {price}<이 pres>
        배송은 [보통|평균] {2~5}일쯤 <걸리 pres>
        [교환|반품]~은 받으신 날부터 {7~14}일 안에 <신청하 hon.req>
        [{50000~100000/10000 원} 이상 사시면|회원으로 가입하시면] 배송비를 받지 <않 pres>
        {product} {aspect}에 문제가 <있 으시면> 고객 센터로 <전화하 hon.req>
        상담 시간은 평일 오전 {9~10}시부터 오후 {5~8}시까지<이 pres>
        {month} 한 달 동안 {product}~을 {5~40/5}% 싸게 사실 수 <있 pres>
        """,
        """
        이용해 주셔서 <감사하 pres>
        앞으로도 더 좋은 서비스로 <보답하 guess>
        불편을 드려 <죄송하 pres>
        """,
    ),
    Scene(
        "help",
        6,
        "hapnida haeyo",
        """
        {device}~이 갑자기 <꺼지 으면> 먼저 전원을 <확인하 hon.req>
        {app} 앱이 {version} 버전으로 <바뀌 past>
        {app} 앱에서 [자료|기록]~을 <지우 았을> 때에는 이렇게 <하 hon.req>
        {device}~을 처음 쓰실 때에는 {app} 앱부터 <설치하 hon.req>
        """,
        """
        설정에서 [Wi-Fi|블루투스|GPS|알림]~을 껐다가 다시 <켜 hon.req>
        충전은 {1~4 한} 시간쯤 걸리고, 한 번 충전하면 {8~48}시간 쓸 수 <있 pres>
        저장 공간이 {2~16}GB보다 <적 으면> 앱이 느려질 수 <있 pres>
        비밀번호는 [영문자와 숫자를 섞어|숫자만으로] {6~12}자리로 <정하 hon.req>
        [PDF|JPG|MP3|TXT] 파일은 {5~100/5}MB까지 올릴 수 <있 pres>
        {app} 앱 {version}~은 {device}에서도 잘 <작동하 pres>
        """,
        """
        그래도 안 되면 고객 센터 {1500~1899 y}-{1000~9999 y}번으로 <전화하 hon.req>
        [새|다음] 버전은 {month}에 나올 예정<이 pres>
        """,
    ),
)
